"""Training that already feels the rounding: the forward is rounded, gradients are not."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gpt4o_lit.model.weight_format import Number, WeightFormat, as_stored, round_inputs

# O outputs, I inputs, G groups of inputs

Scales = Literal["of_weight", "frozen", "learned"]


class FakeQuantization(nn.Module):
    """Rounds a layer's weight, and perhaps its inputs, as they will be when it is converted.

    Scales follow from the weight as it is. They may be learned in its place, from there on (LSQ,
    arXiv:1902.08153), or stay what `follow_` made them once `freeze_` is called.

    Args:
        format: Of the weight.
        weight_OI: The weight as it is.
        scales: What becomes of its scales.
    """

    log_scales: Tensor | None

    def __init__(
        self, format: WeightFormat, weight_OI: Tensor, scales: Scales = "of_weight"
    ) -> None:
        super().__init__()
        self.format, self.active, self.fixed = format, True, scales == "learned"
        # Logarithms, so that steps of an optimizer are relative; flat, so that it takes them for
        # the vector of numbers that they are.
        logs = format.scales(weight_OI.detach()).abs().log().flatten()
        if scales == "learned":
            self.log_scales = nn.Parameter(logs)
        else:
            room = torch.zeros_like(logs) if scales == "frozen" else None
            self.register_buffer("log_scales", room)

    @torch.no_grad()
    def follow_(self, weight_OI: Tensor) -> None:
        """Let the scales be those of this weight."""
        assert self.log_scales is not None, "made without room for scales"
        self.log_scales.copy_(self.format.scales(weight_OI).abs().log().flatten())

    def freeze_(self) -> None:
        """Keep the scales as they are from now on."""
        assert self.log_scales is not None, "made without room for scales"
        self.log_scales.requires_grad_(False)
        self.fixed = True

    def inputs(self, x: Tensor) -> Tensor:
        """What the converted layer would read."""
        if not self.format.rounds_inputs or not self.active:
            return x
        return fake_quantize_inputs(x, self.format.number)

    def weight(self, weight_OI: Tensor) -> Tensor:
        """The weight that the converted layer would have."""
        if not self.active:
            return weight_OI
        if not self.fixed:
            return fake_quantize(weight_OI, self.format)
        return learned_quantize(weight_OI, self._scales(weight_OI), self.format)

    def rows(self, numbers: Tensor, weight_OI: Tensor) -> Tensor:
        """The rows of that weight with these numbers: (..., I)."""
        rows = F.embedding(numbers, weight_OI)
        if not self.active:
            return rows
        if not self.fixed:
            return fake_quantize(rows, self.format)
        return learned_quantize(rows, F.embedding(numbers, self._scales(weight_OI)), self.format)

    def scales_of(self, weight_OI: Tensor) -> Tensor:
        """With which this weight is converted: (O, G), as they are stored."""
        if not self.fixed:
            return self.format.scales(weight_OI.detach())
        return as_stored(self._scales(weight_OI).detach())

    def _scales(self, weight_OI: Tensor) -> Tensor:
        assert self.log_scales is not None
        return self.format.scales_of_sizes(self.log_scales, weight_OI)


def fake_quantize(weight_OI: Tensor, format: WeightFormat) -> Tensor:
    """Round to the format's numbers; the gradient goes straight through (arXiv:1308.3432)."""
    rounded: Tensor = _Rounded.apply(weight_OI, format)
    return rounded


def learned_quantize(weight_OI: Tensor, scales_OG: Tensor, format: WeightFormat) -> Tensor:
    """Round by scales that are learned too (LSQ, arXiv:1902.08153)."""
    rounded: Tensor = _Learned.apply(weight_OI, scales_OG, format)
    return rounded


def fake_quantize_inputs(x: Tensor, number: Number = "int") -> Tensor:
    """Round each token's inputs to 8 bits of its largest; the gradient goes straight through."""
    rounded: Tensor = _RoundedInputs.apply(x, number)
    return rounded


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight_OI: Tensor, format: WeightFormat) -> Tensor:
        return _rounded(weight_OI, format.scales(weight_OI), format)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_OI: Tensor) -> tuple[Tensor, None]:
        return slope_OI, None


class _Learned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight_OI: Tensor, scales_OG: Tensor, format: WeightFormat) -> Tensor:
        ctx.format = format
        ctx.save_for_backward(weight_OI, scales_OG)
        return _rounded(weight_OI, as_stored(scales_OG), format)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_OI: Tensor) -> tuple[Tensor, Tensor, None]:
        weight_OI, scales_OG = ctx.saved_tensors
        format: WeightFormat = ctx.format
        ratio = format.grouped(weight_OI) / as_stored(scales_OG)[..., None]
        clamped = ratio.clamp(format.lowest, format.highest)
        within = clamped == ratio
        slopes = format.grouped(slope_OI)
        # Equation 3: rounded minus exact within the range, the bound itself beyond it.
        exact = torch.where(within, ratio, torch.zeros_like(ratio))
        toward = format.nearest_(clamped) - exact
        balance = (ratio.shape[-1] * format.highest) ** -0.5
        of_scales = (slopes * toward).sum(-1) * balance
        return (slopes * within).flatten(-2), of_scales.to(scales_OG.dtype), None


class _RoundedInputs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, number: Number) -> Tensor:
        numbers, steps = round_inputs(x, number)
        return (numbers * steps).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return slope, None


def _rounded(weight_OI: Tensor, scales_OG: Tensor, format: WeightFormat) -> Tensor:
    steps = scales_OG[..., None]
    numbers = format.nearest_(format.grouped(weight_OI) / steps)
    return numbers.mul_(steps).flatten(-2).to(weight_OI.dtype)
