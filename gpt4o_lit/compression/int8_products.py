"""Training whose products multiply whole numbers, for which many processors have faster units."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gpt4o_lit.compression.targets import Targets
from gpt4o_lit.model import Transformer
from gpt4o_lit.model.linear import Linear
from gpt4o_lit.model.weight_format import round_rows_

# M rows, O outputs, I inputs

ROWS = 1024
"""That are rounded, multiplied and scaled while they lie in a cache."""


class Int8Products(nn.Module):
    """What a layer computes in training: x W^T + b with x and W rounded to 8 bits.

    Each row of x and of W is rounded by its own largest number, and so is each row of slopes in
    the product that gives the slopes of x. The weight's slopes are sums over many tokens, which
    rounding would spoil: they are exact (SwitchBack, arXiv:2304.13013).
    """

    def forward(self, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        """(..., O), in the dtype that autocast gives a product, else in that of x."""
        y: Tensor = _Product.apply(x, weight_OI)
        return y if bias_O is None else y + bias_O.to(y.dtype)


def use_int8_products_(network: Transformer, targets: Targets) -> None:
    """Have the chosen matrices multiplied as whole numbers while the network trains.

    Raises:
        ValueError: a pattern matches nothing, or a matrix is of no size that kernels multiply.
    """
    for name, weight_OI in targets.weights(network).items():
        if not isinstance(network.get_submodule(name), Linear):
            raise ValueError(
                f"{name} is no product of attention or feed-forward; take its kind out of "
                "targets.kinds"
            )
        if any(size % 8 for size in weight_OI.shape):
            size = " x ".join(map(str, weight_OI.shape))
            raise ValueError(
                f"{name} ({size}) must have a multiple of 8 outputs and inputs; leave it out of "
                "targets by but_not"
            )
        layer: Any = network.get_submodule(name)
        layer.int8 = Int8Products().train(layer.training)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor) -> Tensor:
        device, dtype = x.device.type, x.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        numbers_OI, steps_O1 = _rounded(weight_OI)
        of_x, of_weight = ctx.needs_input_grad
        ctx.save_for_backward(
            x.to(dtype) if of_weight else None,
            *((numbers_OI, steps_O1.T) if of_x else (None, None)),
        )
        ctx.dtypes = x.dtype, weight_OI.dtype
        return _product(x, numbers_OI.T, dtype, after_1O=steps_O1.T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, numbers_OI, steps_1O = ctx.saved_tensors
        x_dtype, weight_dtype = ctx.dtypes
        slope_x = slope_OI = None
        if ctx.needs_input_grad[0]:
            slope_x = _product(slope, numbers_OI, x_dtype, before_1I=steps_1O)
        if ctx.needs_input_grad[1]:
            slope_OI = (slope.flatten(0, -2).T @ x.flatten(0, -2)).to(weight_dtype)
        return slope_x, slope_OI


def _product(
    x: Tensor,
    numbers_IO: Tensor,
    dtype: torch.dtype,
    *,
    before_1I: Tensor | None = None,
    after_1O: Tensor | None = None,
) -> Tensor:
    """x, scaled and then rounded, times whole numbers, scaled: (..., O)."""
    x_MI = x.reshape(-1, x.shape[-1])
    if torch.compiler.is_compiling():
        y_MO = _part(x_MI, numbers_IO, before_1I, after_1O).to(dtype)
    else:
        y_MO = x.new_empty(len(x_MI), numbers_IO.shape[1], dtype=dtype)
        for part_MI, part_MO in zip(x_MI.split(ROWS), y_MO.split(ROWS), strict=True):
            part_MO.copy_(_part(part_MI, numbers_IO, before_1I, after_1O))
    return y_MO.view(*x.shape[:-1], -1)


def _part(
    x_MI: Tensor, numbers_IO: Tensor, before_1I: Tensor | None, after_1O: Tensor | None
) -> Tensor:
    numbers_MI, steps_M1 = _rounded(x_MI, before_1I)
    sums_MO = torch._int_mm(numbers_MI, numbers_IO)
    if torch.compiler.is_compiling():
        scaled_MO = sums_MO * steps_M1
    else:  # where they lie, for fresh memory costs more
        scaled_MO = sums_MO.view(torch.float32).copy_(sums_MO).mul_(steps_M1)
    return scaled_MO if after_1O is None else scaled_MO.mul_(after_1O)


def _rounded(x_MI: Tensor, before_1I: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Whole numbers of each row, scaled before, and its step: int8 (M, I), float32 (M, 1)."""
    exact_MI = x_MI.to(torch.float32, copy=True)
    if before_1I is not None:
        exact_MI.mul_(before_1I)
    steps_M1 = round_rows_(exact_MI)
    return exact_MI.to(torch.int8), steps_M1
