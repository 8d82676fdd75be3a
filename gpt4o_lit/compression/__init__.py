"""Making a network smaller and faster: pure functions, without a Trainer."""

from gpt4o_lit.compression.activation_aware import (
    Share,
    prune_blocks_,
    require_in_blocks,
    sparse_gpt_,
    wanda_,
)
from gpt4o_lit.compression.calibration import Forward
from gpt4o_lit.compression.magnitude import Pattern, magnitude_masks
from gpt4o_lit.compression.movement import MovementScores
from gpt4o_lit.compression.sparsity import Masks, SparsitySchedule
from gpt4o_lit.compression.targets import Targets

__all__ = [
    "Forward",
    "Masks",
    "MovementScores",
    "Pattern",
    "Share",
    "SparsitySchedule",
    "Targets",
    "magnitude_masks",
    "prune_blocks_",
    "require_in_blocks",
    "sparse_gpt_",
    "wanda_",
]
