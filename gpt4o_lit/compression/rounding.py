"""Weights as small numbers times a scale: rounded to nearest, or so that errors cancel (GPTQ)."""

import torch
from torch import Tensor

from gpt4o_lit.compression.second_order import root_of_inverse
from gpt4o_lit.model.weight_format import WeightFormat

# O outputs, I inputs, G groups of inputs

COLUMNS = 128  # rounded one by one before the columns right of them learn of it


def round_to_nearest(weight_OI: Tensor, format: WeightFormat) -> tuple[Tensor, Tensor]:
    """Numbers, int8 or float8 (O, I), and scales (O, G)."""
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
        Numbers, int8 or float8 (O, I), and scales (O, G).
    """
    scales_OG = format.scales(weight_OI)
    inputs = weight_OI.shape[-1]
    order = gram_II.diagonal().argsort(descending=True, stable=True)
    root_II = root_of_inverse(gram_II[order][:, order])
    work_OI = weight_OI.detach().float()[:, order]
    steps_OI = format.spread(scales_OG, inputs)[:, order]
    numbers_OI = torch.empty_like(work_OI)
    for start in range(0, inputs, COLUMNS):
        end = min(start + COLUMNS, inputs)
        columns, root = work_OI[:, start:end], root_II[start:end, start:end]
        errors = torch.empty_like(columns)
        for place in range(end - start):
            step = steps_OI[:, start + place]
            rounded = format.nearest_(columns[:, place] / step)
            numbers_OI[:, start + place] = rounded
            errors[:, place] = (columns[:, place] - rounded * step) / root[place, place]
            columns[:, place:] -= errors[:, place, None] * root[place, place:]
        work_OI[:, end:] -= errors @ root_II[start:end, end:]
    return numbers_OI[:, order.argsort()].to(format.dtype), scales_OG
