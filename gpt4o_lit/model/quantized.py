"""A matrix of small numbers, in place of a layer's weight, and the kernels that read it."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gpt4o_lit.model.products import Float8Product, Int4Product, Int8Product
from gpt4o_lit.model.sums import SUMS_ROWS, streams, sums
from gpt4o_lit.model.weight_format import FLOAT8, INPUT_LEVELS, WeightFormat, round_inputs

# M rows, O outputs, I inputs, G groups of inputs

Kernel = Literal["sums", "int4", "int8", "float8", "restored"]
KERNELS: dict[Kernel, str] = {
    "sums": "compiled sums over numbers that are widened on the way",
    "int4": Int4Product.name,
    "int8": Int8Product.name,
    "float8": Float8Product.name,
    "restored": "products with what the numbers stand for (in bfloat16 on a CPU)",
}


Product = Int4Product | Int8Product | Float8Product
PRODUCTS: dict[Kernel, type[Product]] = {
    "int4": Int4Product, "int8": Int8Product, "float8": Float8Product
}  # fmt: skip


class QuantizedWeight(nn.Module):
    """Stands where a layer had its weight: `layer.weight = QuantizedWeight.of(...)`.

    Holds `numbers`, int8 (O, I), or uint8 (O, I/2) with two of 4 bits to a byte, the lower bits
    first; and `scales` (O, G), whose dtype is the one the network computes in. float8 is kept as
    the int8 of its bits, for casts of a network would widen it.
    """

    numbers: Tensor
    scales: Tensor
    trains_others: bool = False
    """Whether gradients go through it, to what is trained before it; no integer kernel has any."""

    def __init__(self, format: WeightFormat, outputs: int, inputs: int) -> None:
        super().__init__()
        self.format, self.shape = format, torch.Size((outputs, inputs))
        width, dtype = (inputs // 2, torch.uint8) if format.bits == 4 else (inputs, torch.int8)
        self.register_buffer("numbers", torch.zeros(outputs, width, dtype=dtype))
        self.register_buffer("scales", torch.ones(outputs, format.num_groups(inputs)))
        self._packed: Product | None = None

    @classmethod
    def rounding(
        cls, weight_OI: Tensor, format: WeightFormat, scales_OG: Tensor | None = None
    ) -> "QuantizedWeight":
        """From a weight, rounded to nearest, by scales of one's own or those of the format."""
        weight_OI = weight_OI.detach()
        scales_OG = format.scales(weight_OI) if scales_OG is None else scales_OG
        return cls.of(format.round(weight_OI, scales_OG), scales_OG, format)

    @classmethod
    def of(cls, numbers_OI: Tensor, scales_OG: Tensor, format: WeightFormat) -> "QuantizedWeight":
        """From numbers in int8 or float8, and scales."""
        with torch.device("meta"):
            weight = cls(format, *numbers_OI.shape)
        weight.numbers = as_kept(numbers_OI, format)
        weight.scales = scales_OG
        return weight

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.scales.device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in, as a weight would."""
        return self.scales.dtype

    def each_number(self) -> Tensor:
        """As int8 or float8: (O, I)."""
        return from_kept(self.numbers, self.format)

    def restored(self, dtype: torch.dtype | None = None) -> Tensor:
        """The matrix that it stands for, in its own or another dtype: (O, I)."""
        return restored(self.numbers, self.scales.to(dtype or self.dtype), self.format)

    def rows(self, numbers: Tensor) -> Tensor:
        """The rows with these numbers: (..., I)."""
        return restored(self.numbers[numbers], self.scales[numbers], self.format)

    def kernel(self, rows: int, *, compiled: bool) -> Kernel:
        """Which kernel multiplies so many rows; nowhere else is this decided."""
        if self.trains_others:
            return "restored"
        if Float8Product.serves(self.format, self.device):
            return "float8"
        if self.device.type != "cpu" or self.format.is_float:
            return "restored"
        if Int4Product.serves(self.format, rows):
            return "int4"
        if compiled and rows <= SUMS_ROWS and self.format.bits == 8:
            return "sums"
        return "int8" if Int8Product.serves(self.format, rows) else "restored"

    def product(self, x: Tensor, bias_O: Tensor | None) -> Tensor:
        """x W^T + b: (..., O)."""
        if self.trains_others:
            y = frozen_product(x, self.numbers, self.scales, self.format)
            return y if bias_O is None else y + bias_O.to(y.dtype)
        compiled = torch.compiler.is_dynamo_compiling() and streams(x)
        x_MI, steps_M1 = x.reshape(-1, x.shape[-1]), None
        if self.format.rounds_inputs:
            x_MI, steps_M1 = round_inputs(x_MI, self.format.number)
        kernel = self.kernel(len(x_MI), compiled=compiled)
        if kernel == "sums":
            y_MO = sums(x_MI, self.numbers, self.scales)
        elif kernel == "restored":
            dtype = torch.bfloat16 if x.device.type == "cpu" else x.dtype
            y_MO = F.linear(x_MI.to(dtype), self.restored(dtype))
        else:
            self.pack()
            assert self._packed is not None
            y_MO = self._packed(x_MI)
        if steps_M1 is not None:
            y_MO = y_MO.float().mul_(steps_M1)
        if bias_O is not None:
            y_MO = y_MO.add_(bias_O)
        return y_MO.to(x.dtype).view(*x.shape[:-1], -1)

    def pack(self) -> None:
        """Make what its kernel reads, once, and look whether that computes the product.

        Raises:
            RuntimeError: a kernel of this PyTorch gives something else on this machine.
        """
        if self._packed is not None or self.trains_others:
            return
        product = PRODUCTS.get(self.kernel(1, compiled=False))
        if product is not None:
            packed = product(self.each_number(), self.scales, self.format)
            self._require_right(packed)
            self._packed = packed

    def _require_right(self, packed: Product) -> None:
        x_I = torch.linspace(-INPUT_LEVELS, INPUT_LEVELS, self.shape[1], device=self.device)
        x_1I = (self.format.nearest_(x_I) if self.format.is_float else x_I.round())[None]
        right_1O, given_1O = x_1I @ self.restored(torch.float32).T, packed(x_1I).float()
        if (given_1O - right_1O).norm() > 0.01 * right_1O.norm():
            raise RuntimeError(
                f"{packed.name} of torch {torch.__version__} does not give the product on this "
                "machine; install another torch"
            )

    def _apply(self, fn: Any, recurse: bool = True) -> "QuantizedWeight":
        self._packed = None
        return super()._apply(fn, recurse)


def frozen_product(x: Tensor, numbers: Tensor, scales_OG: Tensor, format: WeightFormat) -> Tensor:
    """x W^T in the dtype of x, or of autocast, with a gradient to x alone: (..., O).

    The backward restores W from its numbers again, so that no matrix of floats is kept from the
    forward (QLoRA, arXiv:2305.14314).
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    y: Tensor = _FrozenProduct.apply(x, numbers, scales_OG, format)
    return y


class _FrozenProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, numbers: Tensor, scales_OG: Tensor, format: WeightFormat
    ) -> Tensor:
        ctx.format = format
        ctx.save_for_backward(numbers, scales_OG)
        return F.linear(x, restored(numbers, scales_OG.to(x.dtype), format))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None]:
        numbers, scales_OG = ctx.saved_tensors
        return slope @ restored(numbers, scales_OG.to(slope.dtype), ctx.format), None, None, None


def restored(numbers: Tensor, scales_OG: Tensor, format: WeightFormat) -> Tensor:
    """The matrix that stored numbers stand for, in the dtype of the scales: (O, I)."""
    return format.restore(from_kept(numbers, format), scales_OG)


def as_kept(numbers_OI: Tensor, format: WeightFormat) -> Tensor:
    """Numbers as a QuantizedWeight keeps them."""
    if format.is_float:
        return numbers_OI.view(torch.int8)
    return pack_nibbles(numbers_OI) if format.bits == 4 else numbers_OI


def from_kept(numbers: Tensor, format: WeightFormat) -> Tensor:
    """The numbers themselves, int8 or float8: (O, I)."""
    if format.is_float:
        return numbers.view(FLOAT8)
    return unpack_nibbles(numbers) if format.bits == 4 else numbers


def place_(network: Any, weights: Mapping[str, QuantizedWeight]) -> None:
    """Put them in place of the weights of the layers that they are named by.

    A head that is tied to the embedding of a Transformer stays tied.
    """
    tied = network.head.weight is network.tokens.weight
    for name, weight in weights.items():
        _place_one_(network.get_submodule(name), weight)
    if tied and "tokens" in weights:
        _place_one_(network.head, weights["tokens"])


def formats_of(network: nn.Module) -> dict[str, WeightFormat]:
    """The format of each layer whose weight is quantized; a tied head counts as its embedding."""
    return {
        name.removesuffix(".weight"): part.format
        for name, part in network.named_modules()  # a module that is there twice comes once
        if isinstance(part, QuantizedWeight)
    }


def kernels_of(network: nn.Module, rows: int) -> set[str]:
    """What multiplies so many rows in compiled steps, told in words."""
    return {KERNELS[part.kernel(rows, compiled=True)] for part in quantized_weights(network)}


def weight_tensors(network: nn.Module) -> list[Tensor]:
    """What holds the weights in memory; tied ones come once, copies for kernels do not."""
    buffers = [
        b for part in network.modules() if isinstance(part, QuantizedWeight) for b in part.buffers()
    ]
    return [*network.parameters(), *buffers]


def weight_bytes(network: nn.Module) -> int:
    """Bytes of the weights in memory; tied ones count once, copies for kernels do not."""
    return sum(tensor.nbytes for tensor in weight_tensors(network))


def count_nonzeros(network: nn.Module) -> int:
    """Weights that are not 0; tied ones count once."""
    numbers = [
        part.numbers & 127 if part.format.is_float else part.each_number()  # but for the sign
        for part in quantized_weights(network)
    ]
    return sum(int(tensor.count_nonzero()) for tensor in [*network.parameters(), *numbers])


def restored_state(network: nn.Module) -> dict[str, Tensor]:
    """The state of the same network of floats: each weight is what its numbers stand for."""
    state = network.state_dict()
    for name, part in network.named_modules(remove_duplicate=False):
        if isinstance(part, QuantizedWeight):
            del state[f"{name}.numbers"], state[f"{name}.scales"]
            state[name] = part.restored()
    return state


def quantized_weights(network: nn.Module) -> list[QuantizedWeight]:
    """Those of a network; tied ones once."""
    return [part for part in network.modules() if isinstance(part, QuantizedWeight)]


def _place_one_(layer: Any, weight: QuantizedWeight) -> None:
    del layer.weight
    layer.weight = weight


def pack_nibbles(numbers_OI: Tensor) -> Tensor:
    """Numbers from -8 to 7 two to a byte, the first in the lower bits: uint8 (O, I/2)."""
    shifted = (numbers_OI + 8).to(torch.uint8)
    return shifted[..., ::2] | shifted[..., 1::2] << 4


def unpack_nibbles(packed: Tensor) -> Tensor:
    """The numbers of `pack_nibbles`, as int8: (..., I)."""
    pairs = torch.stack((packed & 15, packed >> 4), dim=-1)
    return pairs.flatten(-2).to(torch.int8) - 8
