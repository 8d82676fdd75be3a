"""Weights as small integers times a scale: rounded to nearest, or so that errors cancel (GPTQ)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gpt4o_lit.compression.second_order import root_of_inverse

# O outputs, I inputs, G groups of inputs

COLUMNS = 128  # rounded one by one before the columns right of them learn of it


@dataclass(frozen=True, kw_only=True)
class WeightFormat:
    """How the numbers of a matrix are stored: whole numbers, and a scale for some of them."""

    bits: Literal[4, 8] = 8
    """Of each number."""
    group_size: int | None = None
    """Inputs that share a scale. Default: all of a row."""

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise ValueError(f"bits ({self.bits}) must be 4 or 8; set it to 8")
        if self.group_size is not None and (self.group_size < 2 or self.group_size % 2):
            raise ValueError(
                f"group_size ({self.group_size}) must be even, for two numbers of 4 bits share a "
                "byte; set it to 32, or leave it out for a scale for each row"
            )

    @property
    def lowest(self) -> int:
        """The smallest whole number."""
        return -(1 << (self.bits - 1))

    @property
    def highest(self) -> int:
        """The largest whole number."""
        return -self.lowest - 1

    def require_width(self, name: str, inputs: int) -> None:
        """Refuse a matrix whose rows fall into no such groups."""
        if inputs % (self.group_size or 2):
            raise ValueError(
                f"{name}: its {inputs} inputs must be a multiple of group_size "
                f"({self.group_size or 2}); choose another group_size, or leave the layer out"
            )

    def scales(self, weight_OI: Tensor) -> Tensor:
        """By which the largest of each group is half a step beyond the highest number: (O, G)."""
        groups_OGI = weight_OI.float().unflatten(-1, (-1, self.group_size or weight_OI.shape[-1]))
        return as_stored(groups_OGI.abs().amax(-1) / (self.highest + 0.5))

    def round(self, weight_OI: Tensor, scales_OG: Tensor) -> Tensor:
        """The nearest whole numbers: int8 (O, I)."""
        steps = weight_OI.float() / self.spread(scales_OG, weight_OI.shape[-1])
        return steps.round_().clamp_(self.lowest, self.highest).to(torch.int8)

    def restore(self, numbers_OI: Tensor, scales_OG: Tensor) -> Tensor:
        """What the numbers stand for: float32 (O, I)."""
        return numbers_OI.float() * self.spread(scales_OG, numbers_OI.shape[-1])

    def spread(self, scales_OG: Tensor, inputs: int) -> Tensor:
        """A scale for each input: (O, I), or (O, 1) where a row has one."""
        if self.group_size is None:
            return scales_OG.float()
        return scales_OG.float().repeat_interleave(self.group_size, dim=-1)


def as_stored(scales_OG: Tensor) -> Tensor:
    """Rounded to bfloat16, in which they are stored, and never 0; still float32.

    By their bits, for compilers leave a cast there and back out. Numbers are rounded by these
    scales, so that nothing is lost by it.
    """
    bits = scales_OG.float().clamp(min=torch.finfo(torch.bfloat16).tiny).view(torch.int32)
    return ((bits + 0x8000) & -0x10000).view(torch.float32)


def round_to_nearest(weight_OI: Tensor, format: WeightFormat) -> tuple[Tensor, Tensor]:
    """Whole numbers, int8 (O, I), and scales (O, G)."""
    scales_OG = format.scales(weight_OI)
    return format.round(weight_OI, scales_OG), scales_OG


@torch.no_grad()
def gptq(weight_OI: Tensor, gram_II: Tensor, format: WeightFormat) -> tuple[Tensor, Tensor]:
    """Round column by column; those right of each make good for its error (arXiv:2210.17323).

    Columns whose inputs are largest come first. A group's scales are those of the weights as they
    were given, so that the groups need not lie side by side in that order.

    Args:
        gram_II: Products of each two inputs, summed over tokens.

    Returns:
        Whole numbers, int8 (O, I), and scales (O, G).
    """
    scales_OG = format.scales(weight_OI)
    inputs = weight_OI.shape[-1]
    order = gram_II.diagonal().argsort(descending=True, stable=True)
    root_II = root_of_inverse(gram_II[order][:, order])
    work_OI = weight_OI.detach().float()[:, order]
    steps_OI = format.spread(scales_OG, inputs).expand(len(work_OI), inputs)[:, order]
    numbers_OI = torch.empty(work_OI.shape, dtype=torch.int8, device=work_OI.device)
    for start in range(0, inputs, COLUMNS):
        end = min(start + COLUMNS, inputs)
        columns, root = work_OI[:, start:end], root_II[start:end, start:end]
        errors = torch.empty_like(columns)
        for place in range(end - start):
            step = steps_OI[:, start + place]
            rounded = (columns[:, place] / step).round().clamp(format.lowest, format.highest)
            numbers_OI[:, start + place] = rounded.to(torch.int8)
            errors[:, place] = (columns[:, place] - rounded * step) / root[place, place]
            columns[:, place:] -= errors[:, place, None] * root[place, place:]
        work_OI[:, end:] -= errors @ root_II[start:end, end:]
    return numbers_OI[:, order.argsort()], scales_OG
