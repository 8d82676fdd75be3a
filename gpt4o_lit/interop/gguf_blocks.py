"""Whole numbers as GGUF stores them: blocks of 32 with a scale in float16 (Q8_0, Q4_0)."""

import numpy as np
import torch
from torch import Tensor

from gpt4o_lit.model.quantized import QuantizedWeight

# O outputs, I inputs, B blocks of a row

BLOCK = 32
KINDS = {8: "Q8_0", 4: "Q4_0"}  # by bits


def require_blocks(name: str, weight: QuantizedWeight) -> None:
    """Refuse numbers and scales that a block of 32 inputs cannot have.

    Raises:
        ValueError: naming the layer and the mend.
    """
    if weight.format.is_float:
        raise ValueError(
            f"gguf: {name} has float8, of which there are no blocks; compress the run with "
            "--recipe int8, or export with --format compressed-tensors"
        )
    inputs = weight.shape[1]
    group = weight.format.group_size or inputs
    if group % BLOCK or inputs % BLOCK:
        raise ValueError(
            f"gguf: {name} has a scale for {group} of {inputs} inputs, which must be multiples of "
            f"{BLOCK}; compress the run with group_size {BLOCK}"
        )
    scales = weight.scales.float()
    if not torch.equal(scales, scales.half().float()):
        raise ValueError(
            f"gguf: scales of {name} are too small or too large for float16; export the run that "
            "it was made of, with --dtype float16"
        )


def blocks(weights_OI: Tensor, steps_OI: Tensor, bits: int) -> np.ndarray:
    """The bytes of each row: uint8 (O, bytes).

    Args:
        weights_OI: What the numbers stand for.
        steps_OI: The scale of each.
    """
    numbers_OBK = (weights_OI / steps_OI).round().to(torch.int8).unflatten(1, (-1, BLOCK))
    scales_OB = np.ascontiguousarray(steps_OI[:, ::BLOCK].half().numpy())
    scales_OB2 = scales_OB.view(np.uint8).reshape(*scales_OB.shape, 2)
    if bits == 8:
        packed = numbers_OBK.contiguous().view(torch.uint8)
    else:  # the second half of a block in the upper bits
        first, second = (numbers_OBK + 8).to(torch.uint8).chunk(2, dim=-1)
        packed = first | second << 4
    return np.concatenate([scales_OB2, packed.numpy()], axis=-1).reshape(len(scales_OB), -1)
