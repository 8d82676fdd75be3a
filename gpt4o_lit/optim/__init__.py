"""How weights move: optimizers with their decay groups, and the learning rate over time."""

from gpt4o_lit.optim.groups import refresh_row_parts
from gpt4o_lit.optim.recipes import Adafactor, AdamW, Muon, OptimizerRecipe
from gpt4o_lit.optim.schedules import (
    Constant,
    Schedule,
    WarmupCosine,
    WarmupInverseSqrt,
    WarmupLinear,
    WarmupStableDecay,
)

__all__ = [
    "Adafactor",
    "AdamW",
    "Constant",
    "Muon",
    "OptimizerRecipe",
    "Schedule",
    "WarmupCosine",
    "WarmupInverseSqrt",
    "WarmupLinear",
    "WarmupStableDecay",
    "refresh_row_parts",
]
