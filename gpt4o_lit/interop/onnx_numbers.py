"""Quantized weights as ONNX graphs keep them: whole numbers that MatMulNBits multiplies with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt4o_lit.model import Transformer
from gpt4o_lit.model.quantized import QuantizedWeight, pack_nibbles, place_

# O outputs, I inputs, G groups of inputs

GROUP = 64  # inputs that a block of MatMulNBits has where a whole row shares a scale
INT8_INPUTS = 4
"""accuracy_level: inputs are rounded to 8 bits, block by block, as llama.cpp does."""


class WeightInGraph(QuantizedWeight):
    """A quantized weight whose product is one node of ONNX Runtime's (com.microsoft)."""

    @classmethod
    def like(cls, weight: QuantizedWeight) -> "WeightInGraph":
        """The same numbers, and once more as the node reads them.

        Raises:
            ValueError: they are no whole numbers.
        """
        if weight.format.is_float:
            raise ValueError(
                "onnx: MatMulNBits reads whole numbers, but the run has float8; compress it with "
                "--recipe int8, or export with --format compressed-tensors"
            )
        with torch.device("meta"):
            made = cls(weight.format, *weight.shape)
        made.numbers, made.scales = weight.numbers, weight.scales.float()
        format, (outputs, inputs) = weight.format, weight.shape
        made.group = format.group_size or GROUP
        padding = -inputs % made.group
        numbers_OI = F.pad(weight.each_number(), (0, padding))
        stored = pack_nibbles(numbers_OI) if format.bits == 4 else _shifted(numbers_OI)
        groups = (inputs + padding) // made.group
        made.register_buffer("blocks", stored.view(outputs, groups, -1).contiguous())
        each = made.scales if format.group_size else made.scales.expand(-1, groups)
        made.register_buffer("block_scales", each.contiguous())
        return made

    blocks: Tensor
    block_scales: Tensor
    group: int

    def rows(self, numbers: Tensor) -> Tensor:
        """The rows with these numbers: (..., I)."""
        # ONNX has no shifts that keep uint8 what it is.
        stored = self.blocks[numbers].flatten(-2).int()
        if self.format.bits == 4:
            stored = torch.stack((stored % 16, stored // 16), dim=-1).flatten(-2)
        shifted = stored[..., : self.shape[1]] + self.format.lowest
        return self.format.restore(shifted, self.scales[numbers])

    def product(self, x: Tensor, bias_O: Tensor | None) -> Tensor:
        """x W^T + b: (..., O)."""
        outputs, inputs = self.shape
        y: Tensor = torch.onnx.ops.symbolic(
            "com.microsoft::MatMulNBits",
            (x, self.blocks, self.block_scales),
            {
                "K": inputs,
                "N": outputs,
                "bits": self.format.bits,
                "block_size": self.group,
                "accuracy_level": INT8_INPUTS,
            },
            dtype=x.dtype,
            shape=[*x.shape[:-1], outputs],
            version=1,
        )
        return y if bias_O is None else y + bias_O


@contextmanager
def numbers_in_graph(network: Transformer) -> Iterator[None]:
    """Have a network exported with its whole numbers, and not with what they stand for."""
    before = {
        name.removesuffix(".weight"): part
        for name, part in network.named_modules()
        if isinstance(part, QuantizedWeight)
    }
    place_(network, {name: WeightInGraph.like(weight) for name, weight in before.items()})
    try:
        yield
    finally:
        place_(network, before)


def _shifted(numbers_OI: Tensor) -> Tensor:
    return (numbers_OI.short() + 128).to(torch.uint8)
