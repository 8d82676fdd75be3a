"""Normalisation of each token's features."""

# B batch, T tokens, D dim

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from gpt4o_lit.model.config import NormConfig


class RMSNorm(nn.Module):
    """Divide by the root mean square and scale (arXiv:1910.07467)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x_BTD: Tensor) -> Tensor:
        exact = x_BTD.dtype == self.weight.dtype and x_BTD.dtype.itemsize >= 4
        if exact and x_BTD.device.type == "cpu" and x_BTD.requires_grad:
            return _RMSNorm.apply(x_BTD, self.weight, self.eps)
        return F.rms_norm(x_BTD, self.weight.shape, self.weight, self.eps)


class _RMSNorm(torch.autograd.Function):
    """PyTorch has no fused kernel of it for CPUs; these few passes take half its time."""

    @staticmethod
    def forward(ctx: Any, x_BTD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        length_BT1 = torch.linalg.vector_norm(x_BTD, dim=-1, keepdim=True)
        inverse_BT1 = length_BT1.square_().div_(x_BTD.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x_BTD, weight_D, inverse_BT1)
        return (x_BTD * inverse_BT1).mul_(weight_D)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_BTD: Tensor) -> tuple[Tensor, Tensor, None]:
        x_BTD, weight_D, inverse_BT1 = ctx.saved_tensors
        along_BTD = slope_BTD * x_BTD
        with torch.autocast("cpu", enabled=False):
            slope_weight_D = inverse_BT1.flatten() @ along_BTD.flatten(0, -2)
            along_BT1 = (along_BTD @ weight_D)[..., None] * inverse_BT1.pow(3) / x_BTD.shape[-1]
        slope_x_BTD = (slope_BTD * weight_D).mul_(inverse_BT1).addcmul_(x_BTD, along_BT1, value=-1)
        return slope_x_BTD, slope_weight_D, None


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
