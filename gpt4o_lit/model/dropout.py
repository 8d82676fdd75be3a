"""Dropout (JMLR 15, 1929-1958) whose coins are cheap on a CPU, where PyTorch's take longest."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """In training set a share of the features to 0, and scale the others up to keep the mean."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.rate) if self.training and self.rate else x

    def extra_repr(self) -> str:
        """The rate, for printing."""
        return f"rate={self.rate}"


def dropout(x: Tensor, rate: float) -> Tensor:
    """Drop features of x, of any shape, at this rate."""
    if x.device.type != "cpu":
        return F.dropout(x, rate)
    return x * survivors(x.shape, rate).to(x.dtype).div_(1.0 - rate)


def survivors(shape: torch.Size, rate: float) -> Tensor:
    """True at the features that stay, on the CPU; each coin is 16 bits of a 64-bit draw."""
    lowest = torch.iinfo(torch.int64).min
    draws = torch.empty((shape.numel() + 3) // 4, dtype=torch.int64).random_(lowest, None)
    coins = draws.view(torch.int16)[: shape.numel()]
    return (coins >= round(rate * 2**16) - 2**15).view(shape)
