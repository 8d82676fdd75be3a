"""Making a network smaller and faster: pure functions, without a Trainer."""

from gpt4o_lit.compression.activation_aware import (
    Share,
    prune_blocks_,
    require_in_blocks,
    sparse_gpt_,
    wanda_,
)
from gpt4o_lit.compression.calibration import Forward
from gpt4o_lit.compression.fake import FakeQuantization
from gpt4o_lit.compression.importance import Importance, measure_importance
from gpt4o_lit.compression.int8_products import Int8Products, use_int8_products_
from gpt4o_lit.compression.low_rank import add_low_rank_, count_trained, quantize_base_
from gpt4o_lit.compression.magnitude import Pattern, magnitude_masks
from gpt4o_lit.compression.movement import MovementScores
from gpt4o_lit.compression.post_training import Reductions, quantize_, round_
from gpt4o_lit.compression.recipe import FormatRule, Formats
from gpt4o_lit.compression.refit import refit_
from gpt4o_lit.compression.shrink import Cut, choose
from gpt4o_lit.compression.sparsity import Masks, SparsitySchedule
from gpt4o_lit.compression.structure import Kept, cut_, cut_state_
from gpt4o_lit.compression.targets import Targets

__all__ = [
    "Cut",
    "FakeQuantization",
    "FormatRule",
    "Formats",
    "Forward",
    "Importance",
    "Int8Products",
    "Kept",
    "Masks",
    "MovementScores",
    "Pattern",
    "Reductions",
    "Share",
    "SparsitySchedule",
    "Targets",
    "add_low_rank_",
    "choose",
    "count_trained",
    "cut_",
    "cut_state_",
    "magnitude_masks",
    "measure_importance",
    "prune_blocks_",
    "quantize_",
    "quantize_base_",
    "refit_",
    "require_in_blocks",
    "round_",
    "sparse_gpt_",
    "use_int8_products_",
    "wanda_",
]
