"""Quantization of a trained network, block after block."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gpt4o_lit.compression.calibration import (
    Forward,
    blocks_in_turn,
    gram,
    largest,
    measure_inputs,
)
from gpt4o_lit.compression.rounding import WeightFormat, gptq, round_to_nearest
from gpt4o_lit.compression.smoothing import awq_scales, scalables, smooth_scales
from gpt4o_lit.model import Transformer
from gpt4o_lit.model.block import Block

# O outputs, I inputs, G groups of inputs

RoundingMethod = Literal["nearest", "gptq", "awq", "smooth"]
Numbers = tuple[Tensor, Tensor]
"""Whole numbers, int8 (O, I), and scales (O, G)."""


@dataclass(frozen=True, kw_only=True)
class Reductions:
    """How what processes measured on different batches becomes one; alone nothing is to be done."""

    sum: Callable[[Tensor], Tensor] = lambda tensor: tensor
    max: Callable[[Tensor], Tensor] = lambda tensor: tensor


@torch.no_grad()
def quantize_blocks_(
    network: Transformer,
    weights: Mapping[str, Tensor],
    forwards: Sequence[Forward],
    method: RoundingMethod,
    format: WeightFormat,
    reductions: Reductions,
) -> Iterator[dict[str, Numbers]]:
    """Round block after block, each on what the rounded ones before it give.

    Weights become what their numbers stand for. AWQ and SmoothQuant first move scales from norms
    and values into the weights; what the network computes stays the same but for the rounding.

    Args:
        weights: Matrices by the names of their layers; those outside of blocks are left alone.
        forwards: Each reads a batch by the whole network, in evaluation mode.

    Yields:
        For each block the numbers of its matrices by the names of their layers.
    """
    with torch.compiler.set_stance("force_eager"):
        for name, block, run in blocks_in_turn(network, forwards):
            inside = {layer: weights[layer] for layer in weights if layer.startswith(f"{name}.")}
            assert isinstance(block, Block)
            grams: dict[str, Tensor] = {}
            if method in ("gptq", "awq"):
                grams = measure_inputs(network, dict.fromkeys(inside, gram), run)
                grams = {layer: reductions.sum(value) for layer, value in grams.items()}
            if method == "awq":
                for each in scalables(name, block):
                    if each.reader in inside:
                        of = inside[each.reader]
                        each.scale_(awq_scales(of, grams[each.reader], format))
            elif method == "smooth":
                most = measure_inputs(network, dict.fromkeys(inside, largest), run, torch.maximum)
                for each in scalables(name, block):
                    if each.reader in inside:
                        of = inside[each.reader]
                        each.scale_(smooth_scales(of, reductions.max(most[each.reader])))
            numbers: dict[str, Numbers] = {}
            for layer, weight in inside.items():
                found = (
                    gptq(weight, grams[layer], format)
                    if method == "gptq"
                    else round_to_nearest(weight, format)
                )
                weight.copy_(format.restore(*found))
                numbers[layer] = found
            yield numbers
