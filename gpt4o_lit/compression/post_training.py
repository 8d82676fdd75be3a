"""Quantization of a trained network, block after block."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from gpt4o_lit.compression.calibration import (
    Forward,
    blocks_in_turn,
    gram,
    largest,
    measure_inputs,
)
from gpt4o_lit.compression.rounding import gptq, round_to_nearest
from gpt4o_lit.compression.smoothing import awq_scales, scalables, smooth_scales
from gpt4o_lit.model import Transformer
from gpt4o_lit.model.block import Block
from gpt4o_lit.model.quantized import QuantizedWeight, place_
from gpt4o_lit.model.weight_format import WeightFormat

# O outputs, I inputs, G groups of inputs

RoundingMethod = Literal["nearest", "gptq", "awq", "smooth"]
Numbers = tuple[Tensor, Tensor]
"""Whole numbers, int8 (O, I), and scales (O, G)."""


@dataclass(frozen=True, kw_only=True)
class Reductions:
    """How what processes measured on different batches becomes one; alone nothing is to be done."""

    sum: Callable[[Tensor], Tensor] = lambda tensor: tensor
    max: Callable[[Tensor], Tensor] = lambda tensor: tensor


ALONE = Reductions()


@torch.no_grad()
def quantize_blocks_(
    network: Transformer,
    formats: Mapping[str, WeightFormat],
    forwards: Sequence[Forward],
    method: RoundingMethod,
    reductions: Reductions = ALONE,
) -> Iterator[dict[str, Numbers]]:
    """Round block after block, each on what the rounded ones before it give.

    Weights become what their numbers stand for. AWQ and SmoothQuant first move scales from norms
    and values into the weights; what the network computes stays the same but for the rounding.

    Args:
        formats: By the names of layers; those outside of blocks are left alone.
        forwards: Each reads a batch by the whole network, in evaluation mode.

    Yields:
        For each block the numbers of its matrices by the names of their layers.
    """
    with torch.compiler.set_stance("force_eager"):
        for name, block, run in blocks_in_turn(network, forwards):
            assert isinstance(block, Block)
            layers = [layer for layer in formats if layer.startswith(f"{name}.")]
            inside: dict[str, Tensor] = {
                layer: network.get_submodule(layer).weight  # type: ignore[misc]
                for layer in layers
            }
            grams: dict[str, Tensor] = {}
            if method in ("gptq", "awq"):
                grams = measure_inputs(network, dict.fromkeys(inside, gram), run)
                grams = {layer: reductions.sum(value) for layer, value in grams.items()}
            if method == "awq":
                for each in scalables(name, block):
                    if each.reader in inside:
                        of = inside[each.reader]
                        each.scale_(awq_scales(of, grams[each.reader], formats[each.reader]))
            elif method == "smooth":
                most = measure_inputs(network, dict.fromkeys(inside, largest), run, torch.maximum)
                for each in scalables(name, block):
                    if each.reader in inside:
                        of = inside[each.reader]
                        each.scale_(smooth_scales(of, reductions.max(most[each.reader])))
            numbers: dict[str, Numbers] = {}
            for layer, weight in inside.items():
                format = formats[layer]
                found = (
                    gptq(weight, grams[layer], format)
                    if method == "gptq"
                    else round_to_nearest(weight, format)
                )
                weight.copy_(format.restore(*found))
                numbers[layer] = found
            yield numbers


@torch.no_grad()
def round_(network: Transformer, formats: Mapping[str, WeightFormat]) -> None:
    """Quantize a network at once, each weight rounded to nearest: no text is looked at."""
    for name, format in formats.items():
        layer: Any = network.get_submodule(name)
        place_(network, {name: QuantizedWeight.rounding(layer.weight, format)})


@torch.no_grad()
def quantize_(
    network: Transformer,
    formats: Mapping[str, WeightFormat],
    forwards: Sequence[Forward],
    method: RoundingMethod,
    reductions: Reductions = ALONE,
) -> Iterator[int]:
    """Quantize a network; what lies outside of blocks is rounded to nearest.

    The arguments are those of `quantize_blocks_`; nearest needs no forwards.

    Yields:
        Each time a block is done, how many weights it has.
    """
    found: dict[str, Numbers] = {}
    if method != "nearest":
        for numbers in quantize_blocks_(network, formats, forwards, method, reductions):
            found |= numbers
            yield len(numbers)
    for name, format in formats.items():
        if name not in found:
            weight: Any = network.get_submodule(name).weight
            found[name] = round_to_nearest(weight, format)
            yield 1
    place_(network, {n: QuantizedWeight.of(*found[n], formats[n]) for n in formats})
