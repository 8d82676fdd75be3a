"""PyTorch's products with small numbers, and what they read."""

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt4o_lit.model.weight_format import FLOAT8, FLOAT8_MULTIPLE, WeightFormat

# M rows, O outputs, I inputs, G groups of inputs

BLOCK = 64  # rows that the int4 kernel packs together
HOPPER = (9, 0)  # from which on float8 has kernels with a scale for each row
MOST_ROWS = 32  # up to which it is faster than a product with restored weights


class Int4Product:
    """bfloat16 times packed int4 with a scale for each group, summed in float32."""

    name = "aten._weight_int4pack_mm_for_cpu (bfloat16 x int4)"
    groups = (32, 64, 128, 256)

    @classmethod
    def serves(cls, format: WeightFormat, rows: int) -> bool:
        """Whether it is there for this format, and the fastest for so many rows."""
        return format.bits == 4 and format.group_size in cls.groups and rows <= MOST_ROWS

    def __init__(self, numbers_OI: Tensor, scales_OG: Tensor, format: WeightFormat) -> None:
        assert format.group_size is not None
        self.outputs, self.group_size = len(numbers_OI), format.group_size
        padding = -self.outputs % BLOCK
        scales_GO = F.pad(scales_OG, (0, 0, 0, padding)).T.bfloat16()
        self.scales_GO2 = torch.stack((scales_GO, torch.zeros_like(scales_GO)), dim=-1).contiguous()
        # Block by block, for it wants int32, eight times what it gives.
        self.packed = torch.cat([_packed_int4(block) for block in numbers_OI.split(32 * BLOCK)])

    def __call__(self, x_MI: Tensor) -> Tensor:
        """x W^T: (M, O), in bfloat16."""
        y_MO: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            x_MI.bfloat16(), self.packed, self.group_size, self.scales_GO2
        )
        return y_MO[:, : self.outputs]


class Int8Product:
    """int8 times int8, summed in int32."""

    name = "aten._int_mm (int8 x int8)"

    @classmethod
    def serves(cls, format: WeightFormat, rows: int) -> bool:
        """Whether it is there for this format; it is the fastest for any number of rows."""
        whole = format.bits == 8 and not format.is_float
        return whole and format.group_size is None and format.rounds_inputs

    def __init__(self, numbers_OI: Tensor, scales_OG: Tensor, format: WeightFormat) -> None:
        self.numbers_IO, self.scales_O = numbers_OI.T, scales_OG[:, 0].float()

    def __call__(self, x_MI: Tensor) -> Tensor:
        """x W^T for whole numbers x: (M, O), in float32."""
        sums_MO = torch._int_mm(x_MI.to(torch.int8), self.numbers_IO)
        if torch.compiler.is_compiling():
            return sums_MO * self.scales_O
        # Where it lies: memory that was never touched costs more than the product with scales.
        return sums_MO.view(torch.float32).copy_(sums_MO).mul_(self.scales_O)


class Float8Product:
    """float8 times float8, summed in float32: by the tensor cores of Hopper and later, or a CPU."""

    name = "aten._scaled_mm (float8 x float8)"

    @classmethod
    def serves(cls, format: WeightFormat, device: torch.device) -> bool:
        """Whether it is there for this format. A CPU has it to be exact, at two thirds of the speed
        of products in bfloat16."""
        if not format.is_float or device.type not in ("cpu", "cuda"):
            return False
        return device.type == "cpu" or torch.cuda.get_device_capability(device) >= HOPPER

    def __init__(self, numbers_OI: Tensor, scales_OG: Tensor, format: WeightFormat) -> None:
        self.outputs = len(numbers_OI)
        padding = -self.outputs % FLOAT8_MULTIPLE
        bits_OI = F.pad(numbers_OI.view(torch.int8), (0, 0, 0, padding))
        self.numbers_IO = bits_OI.view(FLOAT8).T
        self.scales_1O = F.pad(scales_OG.float().T, (0, padding), value=1.0).contiguous()

    def __call__(self, x_MI: Tensor) -> Tensor:
        """x W^T for numbers x of float8: (M, O), in float32, or on a GPU in bfloat16."""
        steps_M1 = torch.ones(len(x_MI), 1, device=x_MI.device)
        dtype = torch.float32 if x_MI.device.type == "cpu" else torch.bfloat16
        y_MO: Tensor = torch._scaled_mm(
            x_MI.to(FLOAT8), self.numbers_IO, steps_M1, self.scales_1O, out_dtype=dtype
        )
        return y_MO[:, : self.outputs]


def _packed_int4(numbers_OI: Tensor) -> Tensor:
    padded = F.pad(numbers_OI, (0, 0, 0, -len(numbers_OI) % BLOCK))
    shifted = padded.to(torch.int32) + 8
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(shifted, 1)
    return packed
