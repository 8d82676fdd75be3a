"""Optimizers as a config gives them: settings first, parameters later."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import nn

from gpt4o_lit.optim.groups import decay_groups


class OptimizerRecipe(ABC):
    """Settings from which an optimizer is built once the module exists."""

    @abstractmethod
    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of the module's trainable parameters, in their decay groups."""


@dataclass(frozen=True, kw_only=True)
class AdamW(OptimizerRecipe):
    """Adam with decoupled weight decay (arXiv:1711.05101), in one fused kernel."""

    lr: float = 3e-4
    """Learning rate at the schedule's factor 1."""
    betas: tuple[float, float] = (0.9, 0.95)
    """How much of the past the means of the gradient and of its square keep."""
    eps: float = 1e-8
    """Added to the root of the mean square."""
    weight_decay: float = 0.1
    """Decay of matrices; norms, biases and scalars do not decay."""
    decay_embeddings: bool = True
    """Do embedding tables decay too?"""
    fused: bool = True
    """One kernel for all parameters; false where something must come between."""

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)
        require_betas(self.betas)
        require_not_negative("weight_decay", self.weight_decay)

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        groups = decay_groups(module, self.weight_decay, self.decay_embeddings)
        return torch.optim.AdamW(
            groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=self.fused
        )


def require_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0.0):
        raise ValueError(f"{name} ({value}) must be above 0; set {name} to a value such as 3e-4")


def require_not_negative(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0.0):
        raise ValueError(f"{name} ({value}) must not be negative; set {name} to 0 for none")


def require_betas(betas: tuple[float, float]) -> None:
    if len(betas) != 2 or not all(0.0 <= beta < 1.0 for beta in betas):
        raise ValueError(
            f"betas ({betas}) must be two numbers in [0, 1); set betas to a pair such as [0.9, 0.95]"
        )
