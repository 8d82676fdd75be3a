"""Making a network smaller and faster: pure functions, without a Trainer."""

from gpt4o_lit.compression.magnitude import Pattern, magnitude_masks
from gpt4o_lit.compression.sparsity import Masks, SparsitySchedule
from gpt4o_lit.compression.targets import Targets

__all__ = ["Masks", "Pattern", "SparsitySchedule", "Targets", "magnitude_masks"]
