"""Matrix products, and how those of a few rows are compiled for a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# M rows, O outputs, I inputs

SUMS_ROWS = 2
MOST_ROWS = 64
"""Rows up to which reading weights sets the pace."""


class Packs:
    """Has a weight (O, I), and perhaps once more in the order in which a CPU's kernels read it."""

    weight: Tensor
    packed: Tensor | None = None
    packed_from: tuple[int, ...] | None = None


class Linear(nn.Linear, Packs):
    """`nn.Linear` whose product is `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias, self.packed)


def linear(
    x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None, packed: Tensor | None = None
) -> Tensor:
    """x W^T + b: (..., O).

    Few rows only stream the weights. PyTorch's kernels then read them at half of the memory's
    speed. Where text is written by compiled steps, sums over the inputs, made one loop by the
    compiler, read them for one or two rows at nearly all of it; for more rows, packed weights do.
    """
    if torch.compiler.is_dynamo_compiling() and streams(x):
        rows = x.numel() // x.shape[-1]
        if rows <= SUMS_ROWS:
            return _sums(x, weight_OI, bias_O)
        if packed is not None and rows <= MOST_ROWS:
            y: Tensor = _packed_product(x, packed, len(weight_OI))
            return y if bias_O is None else y + bias_O
    return F.linear(x, weight_OI, bias_O)


def streams(x: Tensor) -> bool:
    """Whether the work is to write text on a CPU, where memory sets the pace."""
    return x.device.type == "cpu" and not torch.is_grad_enabled()


def made_once(x: Tensor) -> Tensor:
    """Let the compiler store x, and not work it out again for each sum that reads it."""
    x = x.contiguous()
    return torch.as_strided(x, x.shape, x.stride())


def pack_(network: nn.Module, rows: int) -> None:
    """Keep each weight packed too, for compiled products of so many rows; memory for it doubles.

    Nothing is done for few or very many rows, where it would not be used, on devices other than a
    CPU, for dtypes that its kernels lack, and for weights that are packed already.
    """
    if not SUMS_ROWS < rows <= MOST_ROWS:
        return
    for part in network.modules():
        if not isinstance(part, Packs) or not _can_pack(part.weight):
            continue
        weight = part.weight.detach()
        source = None if weight.is_inference() else (weight.data_ptr(), weight._version)
        if source is None or source != part.packed_from:
            part.packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
            part.packed_from = source


def _can_pack(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


@torch.library.custom_op("gpt4o_lit::packed_product", mutates_args=())
def _packed_product(x: Tensor, packed: Tensor, outputs: int) -> Tensor:
    """x W^T for a packed weight; a leaf, for the compiler cannot see into it."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
    return y


@_packed_product.register_fake
def _(x: Tensor, packed: Tensor, outputs: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], outputs)


def _sums(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    rows_MI = made_once(x.reshape(-1, x.shape[-1]).float())
    # One sum per row: the compiler joins them in a loop that reads the weights once for all.
    y_MO = torch.stack([(weight_OI.float() * row_I).sum(-1) for row_I in rows_MI])
    if bias_O is not None:
        y_MO = y_MO + bias_O.float()
    return y_MO.to(x.dtype).view(*x.shape[:-1], -1)
