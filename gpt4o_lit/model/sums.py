"""Products of one or two rows, as sums that the compiler makes one loop over the weights."""

import torch
from torch import Tensor

# M rows, O outputs, I inputs, G groups of inputs

SUMS_ROWS = 2
"""Rows up to which such sums read the weights fastest."""


def sums(x_MI: Tensor, weight_OI: Tensor, scales_OG: Tensor | None = None) -> Tensor:
    """x W^T in float32: (M, O).

    Args:
        weight_OI: In any dtype; it is widened on the way.
        scales_OG: With which each group of the weight's inputs is multiplied.
    """
    rows_MI = made_once(x_MI.float())
    return torch.stack([_row_sums(row_I, weight_OI, scales_OG) for row_I in rows_MI])


def _row_sums(x_I: Tensor, weight_OI: Tensor, scales_OG: Tensor | None) -> Tensor:
    """One sum per row: the compiler joins them in a loop that reads the weights once for all."""
    products_OI = weight_OI.float() * x_I
    if scales_OG is None:
        return products_OI.sum(-1)
    sums_OG = products_OI.unflatten(-1, (scales_OG.shape[-1], -1)).sum(-1)
    return (sums_OG * scales_OG.float()).sum(-1)


def streams(x: Tensor) -> bool:
    """Whether the work is to write text on a CPU, where memory sets the pace."""
    return x.device.type == "cpu" and not torch.is_grad_enabled()


def made_once(x: Tensor) -> Tensor:
    """Let the compiler store x, and not work it out again for each sum that reads it."""
    x = x.contiguous()
    return torch.as_strided(x, x.shape, x.stride())
