"""Matrix products, and how those of a few rows are compiled for a CPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt4o_lit.model.quantized import QuantizedWeight
from gpt4o_lit.model.sums import SUMS_ROWS, streams, sums

# M rows, O outputs, I inputs

MOST_ROWS = 64
"""Rows up to which reading weights sets the pace."""


class HasMatrix:
    """Has a weight (O, I): trained, trained as if it were rounded already, or of whole numbers."""

    weight: Any
    """A parameter, or a QuantizedWeight in its place."""
    packed: Tensor | None = None
    """The weight once more, in the order in which a CPU's kernels read it."""
    packed_from: tuple[int, ...] | None = None

    @property
    def fake(self) -> Any:
        """What rounds in training as converting will (compression.FakeQuantization), once set."""
        modules: dict[str, Any] = self.__dict__["_modules"]
        return modules.get("fake")

    def matrix(self) -> Tensor:
        """The weight as products see it: (O, I)."""
        if isinstance(self.weight, QuantizedWeight):
            return self.weight.restored()
        weight: Tensor = self.weight if self.fake is None else self.fake.weight(self.weight)
        return weight


class Linear(nn.Linear, HasMatrix):
    """`nn.Linear` whose product is `linear`."""

    @property
    def low_rank(self) -> Any:
        """What trains beside a weight that stays as it is (`LowRank`), once set."""
        modules: dict[str, Any] = self.__dict__["_modules"]
        return modules.get("low_rank")

    @property
    def int8(self) -> Any:
        """What multiplies whole numbers in training (compression.Int8Products), once set."""
        modules: dict[str, Any] = self.__dict__["_modules"]
        return modules.get("int8")

    def forward(self, x: Tensor) -> Tensor:
        if self.fake is not None:
            return F.linear(self.fake.inputs(x), self.matrix(), self.bias)
        # In this order: a compiled step would ask each layer anew whether it is in training.
        if self.int8 is not None and self.training:
            y = self.int8(x, self.weight, self.bias)
        else:
            y = linear(x, self.weight, self.bias, self.packed)
        return y if self.low_rank is None else y + self.low_rank(x)


class Embedding(nn.Embedding, HasMatrix):
    """`nn.Embedding` whose rows may be rounded."""

    def forward(self, numbers: Tensor) -> Tensor:
        if isinstance(self.weight, QuantizedWeight):
            return self.weight.rows(numbers)
        if self.fake is not None:
            rows: Tensor = self.fake.rows(numbers, self.weight)
            return rows
        return super().forward(numbers)


def linear(
    x: Tensor,
    weight_OI: Tensor | QuantizedWeight,
    bias_O: Tensor | None = None,
    packed: Tensor | None = None,
) -> Tensor:
    """x W^T + b: (..., O).

    Few rows only stream the weights. PyTorch's kernels then read them at half of the memory's
    speed. Where text is written by compiled steps, sums over the inputs, made one loop by the
    compiler, read them for one or two rows at nearly all of it; for more rows, packed weights do.
    """
    if isinstance(weight_OI, QuantizedWeight):
        return weight_OI.product(x, bias_O)
    if torch.compiler.is_dynamo_compiling() and streams(x):
        rows = x.numel() // x.shape[-1]
        if 0 < rows <= SUMS_ROWS:  # a process may have no rows in a validation's last batch
            y_MO = sums(x.reshape(rows, -1), weight_OI)
            y_MO = y_MO if bias_O is None else y_MO + bias_O.float()
            return y_MO.to(x.dtype).view(*x.shape[:-1], -1)
        if packed is not None and 0 < rows <= MOST_ROWS:
            y: Tensor = _packed_product(x, packed, len(weight_OI))
            return y if bias_O is None else y + bias_O
    return F.linear(x, weight_OI, bias_O)


def pack_(network: nn.Module, rows: int) -> None:
    """Keep each weight packed too, for compiled products of so many rows; memory for it doubles.

    Whole numbers are packed for any number of rows. Other weights are not for few or very many
    rows, where it would not be used, on devices other than a CPU, for dtypes that its kernels lack,
    and when they are packed already.
    """
    for part in network.modules():
        if isinstance(part, QuantizedWeight):
            part.pack()
        elif isinstance(part, HasMatrix) and SUMS_ROWS < rows <= MOST_ROWS:
            _pack_dense_(part, rows)


def _pack_dense_(part: HasMatrix, rows: int) -> None:
    if not isinstance(part.weight, Tensor) or not _can_pack(part.weight):
        return
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
