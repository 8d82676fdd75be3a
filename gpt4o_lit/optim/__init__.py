"""How weights move: optimizers with their decay groups, and the learning rate over time."""

from gpt4o_lit.optim.recipes import AdamW, OptimizerRecipe
from gpt4o_lit.optim.schedules import (
    Constant,
    Schedule,
    WarmupCosine,
    WarmupInverseSqrt,
    WarmupLinear,
    WarmupStableDecay,
)

__all__ = [
    "AdamW",
    "Constant",
    "OptimizerRecipe",
    "Schedule",
    "WarmupCosine",
    "WarmupInverseSqrt",
    "WarmupLinear",
    "WarmupStableDecay",
]
