"""Optimizers as a config gives them: settings first, parameters later."""

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from gpt4o_lit.optim.groups import decay_groups, parameter_kinds, row_parts
from gpt4o_lit.optim.muon import Adjust, MuonAdamW


class OptimizerRecipe(ABC):
    """Settings from which an optimizer is built once the module exists."""

    needs_whole_weights: ClassVar[bool] = False
    """Whether its step looks at whole matrices, of which sharding strategies hold parts."""

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


@dataclass(frozen=True, kw_only=True)
class Muon(OptimizerRecipe):
    """Muon for the hidden matrices, AdamW for embeddings, head, norms and biases."""

    needs_whole_weights: ClassVar[bool] = True

    lr: float = 3e-3
    """Learning rate of the matrices at the schedule's factor 1."""
    adamw_lr: float | None = None
    """Learning rate of the rest. Default: lr."""
    momentum: float = 0.95
    """How much of the past the momentum of a matrix keeps."""
    nesterov: bool = True
    """Look one step ahead along the momentum."""
    num_steps: int = 5
    """Newton-Schulz steps towards the orthogonal matrix."""
    adjust: Adjust = "match_rms_adamw"
    """Size of a matrix's step: as AdamW's, so that one lr fits both (arXiv:2502.16982), or not."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's, for the rest."""
    eps: float = 1e-8
    """AdamW's, for the rest."""
    weight_decay: float = 0.1
    """Decay of matrices and head; norms, biases and scalars do not decay."""
    decay_embeddings: bool = True
    """Do embedding tables decay too?"""

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)
        if self.adamw_lr is not None:
            require_positive("adamw_lr", self.adamw_lr)
        require_betas(self.betas)
        require_not_negative("weight_decay", self.weight_decay)
        if not 0.0 <= self.momentum < 1.0:
            raise ValueError(
                f"momentum ({self.momentum}) must lie in [0, 1); set momentum to such as 0.95"
            )
        if not 1 <= self.num_steps < 100:
            raise ValueError(f"num_steps ({self.num_steps}) must lie in 1 to 99; 5 is usual")

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        kinds, parts = parameter_kinds(module), row_parts(module)
        by_parts: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
        rest = list(kinds.head)
        for matrix in kinds.matrices:
            if matrix.ndim == 2:
                by_parts[parts.get(id(matrix), ())].append(matrix)
            else:
                rest.append(matrix)
        still = list(kinds.vectors)
        (rest if self.decay_embeddings else still).extend(kinds.embeddings)
        groups = [self._muon_group(params, rows) for rows, params in by_parts.items()]
        groups += [
            self._adamw_group(params, decay)
            for params, decay in ((rest, self.weight_decay), (still, 0.0))
            if params
        ]
        return MuonAdamW(groups)

    def _muon_group(self, params: list[nn.Parameter], rows: tuple[int, ...]) -> dict[str, Any]:
        return {
            "params": params,
            "algorithm": "muon",
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "num_steps": self.num_steps,
            "adjust": self.adjust,
            "row_parts": rows,
        }

    def _adamw_group(self, params: list[nn.Parameter], weight_decay: float) -> dict[str, Any]:
        return {
            "params": params,
            "algorithm": "adamw",
            "lr": self.lr if self.adamw_lr is None else self.adamw_lr,
            "weight_decay": weight_decay,
            "betas": tuple(self.betas),
            "eps": self.eps,
        }


@dataclass(frozen=True, kw_only=True)
class Adafactor(OptimizerRecipe):
    """Adam with the squares kept by row and column only (arXiv:1804.04235): little memory."""

    needs_whole_weights: ClassVar[bool] = True

    lr: float = 1e-2
    """Greatest relative step at the schedule's factor 1."""
    beta2_decay: float = -0.8
    """How fast the mean of squares forgets: its weight of the past is 1 - step ** beta2_decay."""
    weight_decay: float = 0.0
    """Decay of matrices; norms, biases and scalars do not decay."""
    decay_embeddings: bool = True
    """Do embedding tables decay too?"""

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)
        require_not_negative("weight_decay", self.weight_decay)
        if self.beta2_decay > 0.0:
            raise ValueError(
                f"beta2_decay ({self.beta2_decay}) must not be above 0; set it to such as -0.8"
            )

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        groups = decay_groups(module, self.weight_decay, self.decay_embeddings)
        return torch.optim.Adafactor(groups, lr=self.lr, beta2_decay=self.beta2_decay)


def require_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0.0):
        raise ValueError(f"{name} ({value}) must be above 0; set {name} to a value such as 3e-4")


def require_not_negative(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0.0):
        raise ValueError(f"{name} ({value}) must not be negative; set {name} to 0 for none")


def require_betas(betas: tuple[float, float]) -> None:
    if len(betas) != 2 or not all(0.0 <= beta < 1.0 for beta in betas):
        raise ValueError(
            f"betas ({betas}) must be two numbers in [0, 1); set betas to such as [0.9, 0.95]"
        )
