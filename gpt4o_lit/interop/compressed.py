"""A compressed network as a directory: packed numbers in safetensors, and what they are in JSON."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gpt4o_lit.interop.files import SINGLE, read_json
from gpt4o_lit.model import Transformer, TransformerConfig
from gpt4o_lit.model.position import FixedTable
from gpt4o_lit.model.quantized import (
    QuantizedWeight,
    formats_of,
    pack_nibbles,
    place_,
    unpack_nibbles,
)
from gpt4o_lit.model.weight_format import WeightFormat
from gpt4o_lit.run_directory import NETWORK
from gpt4o_lit.tokenizer import Tokenizer

VERSION = 1
KEPT, VALUES = ".kept", ".values"
USES = ("bidirectional_prompt", "fills_gaps", "source_eos", "classification")
"""Keys of a checkpoint, and of NETWORK, that say how the network is used; each may be missing."""


def save_compressed(
    network: Transformer,
    tokenizer: Tokenizer,
    directory: Path,
    used_as: Mapping[str, Any],
) -> None:
    """Write the weights in the form that takes the fewest bytes, and NETWORK beside them.

    `used_as` is what a checkpoint says of how texts are put before the network, by USES.

    Numbers of 4 bits lie two to a byte, scales are bfloat16. Where enough numbers are 0, a bit for
    each says whether it is there, and those that are follow one another.
    """
    formats = formats_of(network)
    tied = network.config.ties_head
    tensors: dict[str, Tensor] = {}
    sparse: dict[str, list[int]] = {}
    for name, tensor in network.state_dict().items():
        if tied and name.startswith("head.weight"):
            continue
        tensor = tensor.detach().contiguous()
        if name.endswith(".weight.scales"):
            tensor = tensor.bfloat16()
        nibbles = name.endswith(".numbers") and tensor.dtype == torch.uint8
        parts = _sparse(unpack_nibbles(tensor) if nibbles else tensor, nibbles=nibbles)
        if sum(part.nbytes for part in parts) < tensor.nbytes:
            tensors[name + KEPT], tensors[name + VALUES] = parts
            sparse[name] = list(tensor.shape)
        else:
            tensors[name] = tensor
    settings = {
        "version": VERSION,
        "transformer_config": network.config.to_dict(),
        "formats": {name: asdict(format) for name, format in formats.items()},
        "sparse": sparse,
        **{name: used_as[name] for name in USES if name in used_as},
    }
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(directory / "tokenizer")
    part = directory / f"{SINGLE}.part"
    save_file(tensors, part, metadata={"format": "pt"})
    part.rename(directory / SINGLE)
    text = json.dumps(settings, indent=1)
    (directory / NETWORK).write_text(text + "\n", encoding="utf-8")


def is_compressed(directory: Path) -> bool:
    """Whether a directory holds what `save_compressed` writes."""
    return (directory / NETWORK).is_file()


def load_compressed(directory: Path) -> tuple[Transformer, dict[str, Any]]:
    """The network, in evaluation mode, and NETWORK; whole numbers stay whole numbers.

    Raises:
        ValueError: a file is not whole, or does not fit the other.
    """
    settings = read_json(directory / NETWORK)
    if settings.get("version") != VERSION:
        raise ValueError(
            f"{directory / NETWORK}: version ({settings.get('version')}) is not {VERSION}; use "
            "the gpt4o-lit that wrote it, or compress the run again"
        )
    config = TransformerConfig.from_dict(settings["transformer_config"])
    with torch.device("meta"):
        network = Transformer(config)
        layers: dict[str, Any] = dict(network.named_modules())
        weights: dict[str, QuantizedWeight] = {}
        for name, values in settings["formats"].items():
            if name not in layers:
                raise ValueError(
                    f"{directory / NETWORK}: its network has no layer {name}; compress the run "
                    "again"
                )
            layer = layers[name]
            weights[name] = QuantizedWeight(WeightFormat(**values), *layer.weight.shape)
    place_(network, weights)
    state = _read(directory / SINGLE, settings["sparse"])
    if config.ties_head:
        tied = [name for name in state if name.startswith("tokens.weight")]
        state |= {name.replace("tokens", "head", 1): state[name] for name in tied}
    _require_fit(network, state, directory / SINGLE)
    network.load_state_dict(state, assign=True)
    if config.ties_head:
        network.head.weight = network.tokens.weight
    for part in network.modules():
        if isinstance(part, FixedTable):
            part.to_empty(device="cpu")
            part.reset_buffers()
    return network.eval(), settings


def _read(path: Path, sparse: dict[str, list[int]]) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path}: is no whole safetensors file ({error}); compress the run again"
        ) from None
    state = {
        name: tensor.float() if name.endswith(".weight.scales") else tensor
        for name, tensor in stored.items()
        if not name.endswith((KEPT, VALUES))
    }
    for name, shape in sparse.items():
        if not {name + KEPT, name + VALUES} <= stored.keys():
            raise ValueError(f"{path}: {name} is missing; compress the run again")
        state[name] = _dense(stored[name + KEPT], stored[name + VALUES], shape)
    return state


def _require_fit(network: Transformer, state: dict[str, Tensor], path: Path) -> None:
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
    given = {name: tensor.shape for name, tensor in state.items()}
    unfit = sorted(n for n in wanted.keys() | given.keys() if wanted.get(n) != given.get(n))
    if unfit:
        raise ValueError(
            f"{path}: {len(unfit)} tensors do not fit {NETWORK}, the first is {unfit[0]}; "
            "compress the run again"
        )


def _sparse(numbers: Tensor, *, nibbles: bool) -> tuple[Tensor, Tensor]:
    """A bit for each number, the first in the lowest of a byte, and those that are not 0."""
    kept = numbers.flatten() != 0
    values = numbers.flatten()[kept]
    if nibbles:
        values = pack_nibbles(torch.cat([values, values.new_zeros(len(values) % 2)]))
    return torch.from_numpy(np.packbits(kept.numpy(), bitorder="little")), values


def _dense(kept: Tensor, values: Tensor, shape: list[int]) -> Tensor:
    """What `_sparse` was given, in its stored form of this shape."""
    nibbles = values.dtype == torch.uint8
    length = math.prod(shape) * (2 if nibbles else 1)
    bits = np.unpackbits(kept.numpy(), count=length, bitorder="little")
    places = torch.from_numpy(bits).bool()
    whole = unpack_nibbles(values) if nibbles else values
    numbers = torch.zeros(length, dtype=whole.dtype)
    numbers[places] = whole[: int(places.sum())]
    return (pack_nibbles(numbers) if nibbles else numbers).view(shape)
