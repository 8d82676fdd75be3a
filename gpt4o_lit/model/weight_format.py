"""How a matrix is stored: small numbers, mostly whole ones, and a scale for some of them."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

# O outputs, I inputs, G groups of inputs

INPUT_LEVELS = 127  # of 8 bits, on either side of 0
FLOAT8 = torch.float8_e4m3fn
FLOAT8_MOST = int(torch.finfo(FLOAT8).max)
FLOAT8_MULTIPLE = 16  # rows and columns of what its kernels multiply
Number = Literal["int", "float"]


@dataclass(frozen=True, kw_only=True)
class WeightFormat:
    """Numbers of a matrix, and what they are multiplied with."""

    bits: Literal[4, 8] = 8
    """Of each number."""
    number: Number = "int"
    """Whole numbers, or float8 with 4 bits of exponent (e4m3, arXiv:2209.05433), for GPUs from
    Hopper on; its inputs are float8 too, and a row has one scale."""
    group_size: int | None = None
    """Inputs that share a scale. Default: all of a row."""
    rounds_inputs: bool = False
    """What the layer reads is rounded to 8 bits too, each token by its own largest."""

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise ValueError(f"bits ({self.bits}) must be 4 or 8; set it to 8")
        if self.number not in ("int", "float"):
            raise ValueError(f"number ({self.number}) must be int or float; set it to int")
        whole = (self.bits, self.group_size, self.rounds_inputs) == (8, None, True)
        if self.number == "float" and not whole:
            raise ValueError(
                "number (float) has 8 bits, a scale for each row, and rounds inputs, but bits is "
                f"{self.bits}, group_size {self.group_size} and rounds_inputs "
                f"{self.rounds_inputs}; set them to 8, null and true, or number to int"
            )
        if self.group_size is not None and (self.group_size < 2 or self.group_size % 2):
            raise ValueError(
                f"group_size ({self.group_size}) must be even, for two numbers of 4 bits share a "
                "byte; set it to 32, or leave it out for a scale for each row"
            )

    def __str__(self) -> str:
        if self.is_float:
            return "float8, float8 inputs"
        grouped = "" if self.group_size is None else f" in groups of {self.group_size}"
        return f"int{self.bits}{grouped}" + (", int8 inputs" if self.rounds_inputs else "")

    @property
    def is_float(self) -> bool:
        """Whether numbers are float8."""
        return self.number == "float"

    @property
    def dtype(self) -> torch.dtype:
        """Of a number by itself."""
        return FLOAT8 if self.is_float else torch.int8

    @property
    def lowest(self) -> int:
        """The smallest number."""
        return -FLOAT8_MOST if self.is_float else -(1 << (self.bits - 1))

    @property
    def highest(self) -> int:
        """The largest number."""
        return FLOAT8_MOST if self.is_float else -self.lowest - 1

    def num_groups(self, inputs: int) -> int:
        """Scales of a row."""
        return inputs // (self.group_size or inputs)

    def require_width(self, name: str, inputs: int) -> None:
        """Refuse a matrix whose rows fall into no such groups."""
        multiple = self.group_size or (FLOAT8_MULTIPLE if self.is_float else 2)
        if inputs % multiple:
            what = "what float8 kernels read at once" if self.is_float else "group_size"
            raise ValueError(
                f"{name}: its {inputs} inputs must be a multiple of {what} ({multiple}); choose "
                f"another {'format' if self.is_float else 'group_size'}, or leave the layer out"
            )

    def grouped(self, weight_OI: Tensor) -> Tensor:
        """A view by groups: (O, G, inputs of a group)."""
        return weight_OI.unflatten(-1, (-1, self.group_size or weight_OI.shape[-1]))

    def scales(self, weight_OI: Tensor) -> Tensor:
        """By which the weight of each group that lies farthest from 0 is the lowest number: (O, G).

        That number has no counterpart above 0, so steps are the finest that keep this weight
        exact. Where it is above 0 the scale is below. Of float8 each has one, and scales are above.
        """
        groups = self.grouped(weight_OI.float())
        least, most = groups.amin(-1), groups.amax(-1)  # both at once take 20 times as long on CPUs
        if self.is_float:
            return as_stored(torch.maximum(most, -least) / self.highest)
        return as_stored(torch.where(most > -least, most, least) / self.lowest)

    def scales_of_sizes(self, logs: Tensor, weight_OI: Tensor) -> Tensor:
        """Scales of these sizes, given as logarithms, on the side of 0 that suits the weight."""
        sizes_OG = logs.view(len(weight_OI), -1).exp()
        return sizes_OG.copysign(self.scales(weight_OI.detach()))

    def nearest_(self, x: Tensor) -> Tensor:
        """Turn float32 into the nearest numbers that there are."""
        x.clamp_(self.lowest, self.highest)
        return x.copy_(x.to(FLOAT8)) if self.is_float else x.round_()

    def round(self, weight_OI: Tensor, scales_OG: Tensor) -> Tensor:
        """The nearest numbers: int8 or float8 (O, I)."""
        steps = self.grouped(weight_OI.float()) / scales_OG.float()[..., None]
        return self.nearest_(steps).flatten(-2).to(self.dtype)

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


def round_inputs(x: Tensor, number: Number = "int") -> tuple[Tensor, Tensor]:
    """Numbers of 8 bits, still in x's dtype, and each token's step, float32 (..., 1).

    Whole ones from -127 to 127, or those of float8; bfloat16 holds all of them exactly.
    """
    numbers = x.to(torch.float32, copy=True)
    steps = round_rows_(numbers, number)
    return numbers.to(x.dtype), steps


def round_rows_(x: Tensor, number: Number = "int") -> Tensor:
    """Turn float32 into whole numbers from -127 to 127, or float8's; each row's step, (..., 1).

    CPUs do this several times faster than the same in bfloat16.
    """
    most = INPUT_LEVELS if number == "int" else FLOAT8_MOST
    steps = torch.maximum(x.amax(-1, keepdim=True), -x.amin(-1, keepdim=True)).div_(most)
    steps.clamp_(min=torch.finfo(torch.float32).tiny)
    x.div_(steps)
    if number == "int":
        x.round_()
    else:
        x.copy_(x.to(FLOAT8))
    return steps
