"""Normalisation of each token's features."""

# B batch, T tokens, D dim

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt4o_lit.model.config import NormConfig


class RMSNorm(nn.Module):
    """Divide by the root mean square and scale (arXiv:1910.07467)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x_BTD: Tensor) -> Tensor:
        return F.rms_norm(x_BTD, self.weight.shape, self.weight, self.eps)


class LayerNorm(nn.Module):
    """Centre, divide by the standard deviation, scale and shift (arXiv:1607.06450)."""

    def __init__(self, dim: int, eps: float, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None
        self.eps = eps

    def forward(self, x_BTD: Tensor) -> Tensor:
        return F.layer_norm(x_BTD, self.weight.shape, self.weight, self.bias, self.eps)


NORMS = {
    "rms": lambda dim, config: RMSNorm(dim, config.eps),
    "layer": lambda dim, config: LayerNorm(dim, config.eps, config.bias),
}


def make_norm(dim: int, config: NormConfig) -> nn.Module:
    """The norm that a config asks for."""
    return NORMS[config.kind](dim, config)
