"""Small numbers as compressed-tensors stores them, which transformers and vLLM open."""

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from gpt4o_lit.interop.family import Family
from gpt4o_lit.interop.files import SINGLE
from gpt4o_lit.interop.names import NAMES
from gpt4o_lit.interop.save import choose_family, describe, write_json
from gpt4o_lit.interop.tensors import Rule, rules
from gpt4o_lit.model import Transformer
from gpt4o_lit.model.quantized import QuantizedWeight, formats_of, restored_state
from gpt4o_lit.model.weight_format import WeightFormat
from gpt4o_lit.tokenizer import Tokenizer

# O outputs, I inputs, G groups of inputs

WORD = 32  # bits into which numbers are packed
TOKENS = {"num_bits": 8, "symmetric": True, "strategy": "token", "dynamic": True}


def save_compressed_tensors(
    transformer: Transformer,
    directory: Path,
    *,
    family: str | None = None,
    tokenizer: Tokenizer | None = None,
    dtype: torch.dtype = torch.float32,
) -> Family:
    """Write config.json and the weights; linear layers keep their numbers, an embedding is floats.

    Raises:
        ValueError: nothing is quantized, or the family does not keep its weights in linear layers.
    """
    if not formats_of(transformer):
        raise ValueError(
            "compressed-tensors carries quantized weights, but the run has none; compress it "
            "first, or export with --format hf"
        )
    chosen = choose_family(transformer.config, family)
    names = NAMES[chosen.model_type]
    if names.transposed:
        raise ValueError(
            f"compressed-tensors knows linear layers alone, but {chosen.model_type} of "
            "transformers has others; export with --format hf or gguf"
        )
    state = restored_state(transformer)
    tensors: dict[str, Tensor] = {}
    groups: dict[WeightFormat, list[str]] = defaultdict(list)
    weights = dict(transformer.named_modules())
    for rule in rules(transformer.config, names):
        weight = weights.get(rule.ours)
        if isinstance(weight, QuantizedWeight) and rule.ours != "tokens.weight":
            for name, parts in _packed(rule, weight, dtype).items():
                groups[weight.format].append(name)
                tensors |= parts
        else:
            tensors |= rule.write(state[rule.ours].to(dtype))
    values = describe(transformer, chosen, tokenizer, dtype)
    values["quantization_config"] = _config(groups)
    directory.mkdir(parents=True, exist_ok=True)
    part = directory / f"{SINGLE}.partial"
    save_file({name: t.clone() for name, t in tensors.items()}, part, metadata={"format": "pt"})
    os.replace(part, directory / SINGLE)
    write_json(directory / "config.json", values)
    return chosen


def _packed(
    rule: Rule, weight: QuantizedWeight, dtype: torch.dtype
) -> dict[str, dict[str, Tensor]]:
    """The tensors of each of their layers, by the layer's name."""
    numbers = rule.write(weight.each_number().float())
    inputs, scales_OG = weight.shape[1], weight.scales
    steps = rule.write(weight.format.spread(scales_OG, inputs))
    found: dict[str, dict[str, Tensor]] = {}
    for theirs, own in numbers.items():
        layer, own = theirs.removesuffix(".weight"), own.to(weight.format.dtype)
        scale = steps[theirs][:, :: inputs // scales_OG.shape[1]].to(dtype)
        found[layer] = {f"{layer}.weight_scale": scale}
        if _is_packed(weight.format):
            found[layer] |= {
                f"{layer}.weight_packed": pack(own, weight.format.bits),
                f"{layer}.weight_shape": torch.tensor(own.shape),
            }
        else:
            found[layer][theirs] = own
    return found


def pack(numbers_OI: Tensor, bits: int) -> Tensor:
    """Numbers above the lowest one, side by side in words from the lowest bits up: int32 (O, W)."""
    per_word = WORD // bits
    padding = -numbers_OI.shape[1] % per_word
    shifted = numbers_OI.to(torch.int64) + (1 << (bits - 1))
    words = torch.nn.functional.pad(shifted, (0, padding)).unflatten(1, (-1, per_word))
    places = torch.arange(per_word) * bits
    # In 64 bits, of which the lower 32 are the word.
    return (words << places).sum(-1).to(torch.int32)


def _is_packed(format: WeightFormat) -> bool:
    """8 bits with inputs of 8 bits are stored a number to a byte."""
    return format.bits < 8 or not format.rounds_inputs


def _config(groups: dict[WeightFormat, list[str]]) -> dict[str, Any]:
    described = {}
    for number, (format, layers) in enumerate(groups.items()):
        grouped = format.group_size is not None
        described[f"group_{number}"] = {
            "targets": layers,
            "format": "pack-quantized" if _is_packed(format) else f"{format.number}-quantized",
            "weights": {
                "num_bits": format.bits,
                "type": format.number,
                "symmetric": True,
                "strategy": "group" if grouped else "channel",
                "group_size": format.group_size,
                "dynamic": False,
            },
            "input_activations": TOKENS | {"type": format.number} if format.rounds_inputs else None,
            "output_activations": None,
        }
    kinds = {each["format"] for each in described.values()}
    return {
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "format": kinds.pop() if len(kinds) == 1 else "mixed-precision",
        "config_groups": described,
        "ignore": [],
        "kv_cache_scheme": None,
    }
