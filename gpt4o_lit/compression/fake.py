"""Training that already feels the rounding: the forward is rounded, gradients are not."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gpt4o_lit.compression.rounding import WeightFormat, as_stored

# O outputs, I inputs, G groups of inputs, M tokens

INPUT_LEVELS = 127  # of 8 bits, on either side of 0


class FakeQuantization(nn.Module):
    """Rounds a layer's weight, and perhaps its inputs, as they will be when it is converted.

    Args:
        format: Of the weight.
        rounds_inputs: Inputs are rounded to 8 bits too, each token by its own largest.
        scales_OG: Makes the scales parameters, which start there (LSQ, arXiv:1902.08153); else they
            follow from the weight as it is.
    """

    scales: nn.Parameter | None

    def __init__(
        self, format: WeightFormat, *, rounds_inputs: bool, scales_OG: Tensor | None = None
    ) -> None:
        super().__init__()
        self.format, self.rounds_inputs = format, rounds_inputs
        # Flat, so that optimizers take them for the vector of numbers that they are.
        self.scales = None if scales_OG is None else nn.Parameter(scales_OG.flatten().float())

    def forward(self, x: Tensor, weight_OI: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and weight as the converted layer would have them."""
        if self.scales is None:
            rounded_OI = fake_quantize(weight_OI, self.format)
        else:
            scales_OG = self.scales.view(len(weight_OI), -1)
            rounded_OI = learned_quantize(weight_OI, scales_OG, self.format)
        return fake_quantize_inputs(x) if self.rounds_inputs else x, rounded_OI

    def scales_of(self, weight_OI: Tensor) -> Tensor:
        """With which this weight is converted: (O, G), as they are stored."""
        if self.scales is None:
            return self.format.scales(weight_OI)
        return as_stored(self.scales.detach().view(len(weight_OI), -1))


def fake_quantize(weight_OI: Tensor, format: WeightFormat) -> Tensor:
    """Round to the format's numbers; the gradient goes straight through (arXiv:1308.3432)."""
    rounded: Tensor = _Rounded.apply(weight_OI, format)
    return rounded


def learned_quantize(weight_OI: Tensor, scales_OG: Tensor, format: WeightFormat) -> Tensor:
    """Round by scales that are learned too (LSQ, arXiv:1902.08153)."""
    rounded: Tensor = _Learned.apply(weight_OI, scales_OG, format)
    return rounded


def fake_quantize_inputs(x: Tensor) -> Tensor:
    """Round each token's inputs to 8 bits of its largest; the gradient goes straight through."""
    rounded: Tensor = _RoundedInputs.apply(x)
    return rounded


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight_OI: Tensor, format: WeightFormat) -> Tensor:
        groups = weight_OI.unflatten(-1, (-1, format.group_size or weight_OI.shape[-1]))
        steps = format.scales(weight_OI)[..., None]
        numbers = (groups / steps).round_().clamp_(format.lowest, format.highest)
        return numbers.mul_(steps).flatten(-2).to(weight_OI.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_OI: Tensor) -> tuple[Tensor, None]:
        return slope_OI, None


class _Learned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight_OI: Tensor, scales_OG: Tensor, format: WeightFormat) -> Tensor:
        ctx.format = format
        ctx.save_for_backward(weight_OI, scales_OG)
        groups, steps = _grouped(weight_OI, format), as_stored(scales_OG)[..., None]
        numbers = (groups / steps).round_().clamp_(format.lowest, format.highest)
        return numbers.mul_(steps).flatten(-2).to(weight_OI.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_OI: Tensor) -> tuple[Tensor, Tensor, None]:
        weight_OI, scales_OG = ctx.saved_tensors
        format: WeightFormat = ctx.format
        ratio = _grouped(weight_OI, format) / as_stored(scales_OG)[..., None]
        clamped = ratio.clamp(format.lowest, format.highest)
        within = clamped == ratio
        slopes = _grouped(slope_OI, format)
        # Equation 3: rounded minus exact within the range, the bound itself beyond it.
        toward = clamped.round() - torch.where(within, ratio, torch.zeros_like(ratio))
        balance = (ratio.shape[-1] * format.highest) ** -0.5
        of_scales = (slopes * toward).sum(-1) * balance
        return (slopes * within).flatten(-2), of_scales.to(scales_OG.dtype), None


class _RoundedInputs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        steps = x.detach().abs().amax(-1, keepdim=True).float() / INPUT_LEVELS
        steps.clamp_(min=torch.finfo(torch.float32).tiny)
        return (x / steps).round_().mul_(steps).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope


def _grouped(weight_OI: Tensor, format: WeightFormat) -> Tensor:
    return weight_OI.unflatten(-1, (-1, format.group_size or weight_OI.shape[-1]))
