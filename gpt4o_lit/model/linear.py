"""Matrix products, and how those of a few rows are compiled for a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# M rows, O outputs, I inputs

FEW_ROWS = 8


class Linear(nn.Linear):
    """`nn.Linear` whose product is `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """x W^T + b: (..., O).

    Few rows only stream the weights. PyTorch's kernels then read them at half of the memory's
    speed; sums over the inputs, made one loop by the compiler, read them at nearly all of it.
    """
    if torch.compiler.is_dynamo_compiling() and streams(x) and x.numel() <= FEW_ROWS * x.shape[-1]:
        return _sums(x, weight_OI, bias_O)
    return F.linear(x, weight_OI, bias_O)


def streams(x: Tensor) -> bool:
    """Whether the work is to write text on a CPU, where memory sets the pace."""
    return x.device.type == "cpu" and not torch.is_grad_enabled()


def made_once(x: Tensor) -> Tensor:
    """Let the compiler store x, and not work it out again for each sum that reads it."""
    x = x.contiguous()
    return torch.as_strided(x, x.shape, x.stride())


def _sums(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    rows_MI = made_once(x.reshape(-1, x.shape[-1]).float())
    # One sum per row: the compiler joins them in a loop that reads the weights once for all.
    y_MO = torch.stack([(weight_OI.float() * row_I).sum(-1) for row_I in rows_MI])
    if bias_O is not None:
        y_MO = y_MO + bias_O.float()
    return y_MO.to(x.dtype).view(*x.shape[:-1], -1)
