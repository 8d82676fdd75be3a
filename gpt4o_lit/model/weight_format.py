"""How a matrix is stored: small whole numbers, and a scale for some of them."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

# O outputs, I inputs, G groups of inputs

INPUT_LEVELS = 127  # of 8 bits, on either side of 0


@dataclass(frozen=True, kw_only=True)
class WeightFormat:
    """Numbers of a matrix, and what they are multiplied with."""

    bits: Literal[4, 8] = 8
    """Of each number."""
    group_size: int | None = None
    """Inputs that share a scale. Default: all of a row."""
    rounds_inputs: bool = False
    """What the layer reads is rounded to 8 bits too, each token by its own largest."""

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise ValueError(f"bits ({self.bits}) must be 4 or 8; set it to 8")
        if self.group_size is not None and (self.group_size < 2 or self.group_size % 2):
            raise ValueError(
                f"group_size ({self.group_size}) must be even, for two numbers of 4 bits share a "
                "byte; set it to 32, or leave it out for a scale for each row"
            )

    def __str__(self) -> str:
        grouped = "" if self.group_size is None else f" in groups of {self.group_size}"
        return f"int{self.bits}{grouped}" + (", int8 inputs" if self.rounds_inputs else "")

    @property
    def lowest(self) -> int:
        """The smallest whole number."""
        return -(1 << (self.bits - 1))

    @property
    def highest(self) -> int:
        """The largest whole number."""
        return -self.lowest - 1

    def num_groups(self, inputs: int) -> int:
        """Scales of a row."""
        return inputs // (self.group_size or inputs)

    def require_width(self, name: str, inputs: int) -> None:
        """Refuse a matrix whose rows fall into no such groups."""
        if inputs % (self.group_size or 2):
            raise ValueError(
                f"{name}: its {inputs} inputs must be a multiple of group_size "
                f"({self.group_size or 2}); choose another group_size, or leave the layer out"
            )

    def grouped(self, weight_OI: Tensor) -> Tensor:
        """A view by groups: (O, G, inputs of a group)."""
        return weight_OI.unflatten(-1, (-1, self.group_size or weight_OI.shape[-1]))

    def scales(self, weight_OI: Tensor) -> Tensor:
        """By which the weight of each group that lies farthest from 0 is the lowest number: (O, G).

        That number has no counterpart above 0, so steps are the finest that keep this weight
        exact. Where it is above 0 the scale is below.
        """
        groups = self.grouped(weight_OI.float())
        least, most = groups.amin(-1), groups.amax(-1)  # both at once take 20 times as long on CPUs
        return as_stored(torch.where(most > -least, most, least) / self.lowest)

    def scales_of_sizes(self, logs: Tensor, weight_OI: Tensor) -> Tensor:
        """Scales of these sizes, given as logarithms, on the side of 0 that suits the weight."""
        sizes_OG = logs.view(len(weight_OI), -1).exp()
        return sizes_OG.copysign(self.scales(weight_OI.detach()))

    def round(self, weight_OI: Tensor, scales_OG: Tensor) -> Tensor:
        """The nearest whole numbers: int8 (O, I)."""
        steps = self.grouped(weight_OI.float()) / scales_OG.float()[..., None]
        return steps.round_().clamp_(self.lowest, self.highest).flatten(-2).to(torch.int8)

    def restore(self, numbers_OI: Tensor, scales_OG: Tensor) -> Tensor:
        """What the numbers stand for, in the dtype of the scales: (O, I)."""
        groups = self.grouped(numbers_OI).to(scales_OG.dtype)
        return (groups * scales_OG[..., None]).flatten(-2)

    def spread(self, scales_OG: Tensor, inputs: int) -> Tensor:
        """A scale for each input: (O, I)."""
        return scales_OG.repeat_interleave(inputs // scales_OG.shape[-1], dim=-1)


def as_stored(scales_OG: Tensor) -> Tensor:
    """Rounded to bfloat16, in which they are stored, and never 0; still float32.

    By their bits, for compilers leave a cast there and back out. Numbers are rounded by these
    scales, so that nothing is lost by it.
    """
    scales_OG = scales_OG.float()
    sizes = scales_OG.abs().clamp(min=torch.finfo(torch.bfloat16).tiny)
    bits = sizes.copysign(scales_OG).view(torch.int32)
    return ((bits + 0x8000) & -0x10000).view(torch.float32)


def round_inputs(x: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127, still in x's dtype, and each token's step, float32 (..., 1).

    bfloat16 holds these numbers exactly.
    """
    numbers = x.to(torch.float32, copy=True)
    steps = round_rows_(numbers)
    return numbers.to(x.dtype), steps


def round_rows_(x: Tensor) -> Tensor:
    """Turn float32 into whole numbers from -127 to 127; each row's step, (..., 1).

    CPUs do this several times faster than the same in bfloat16.
    """
    steps = torch.maximum(x.amax(-1, keepdim=True), -x.amin(-1, keepdim=True)).div_(INPUT_LEVELS)
    steps.clamp_(min=torch.finfo(torch.float32).tiny)
    x.div_(steps).round_()
    return steps
