"""Writes a Transformer as a directory that Hugging Face's AutoModel classes open."""

import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from gpt4o_lit.interop.families import FAMILIES
from gpt4o_lit.interop.family import Family
from gpt4o_lit.interop.files import INDEX, SINGLE
from gpt4o_lit.interop.names import NAMES
from gpt4o_lit.interop.paths import is_training_only, resolve
from gpt4o_lit.interop.tensors import Rule, rules
from gpt4o_lit.model import Transformer, TransformerConfig
from gpt4o_lit.model.quantized import restored_state
from gpt4o_lit.tokenizer import Tokenizer

SHARD_BYTES = 5_000_000_000


def save_hugging_face(
    transformer: Transformer,
    directory: Path | str,
    *,
    family: str | None = None,
    tokenizer: Tokenizer | None = None,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = SHARD_BYTES,
) -> Family:
    """Write config.json and the weights; the tokenizer gives the ids of pad, bos and eos.

    Without a family the first is taken that carries all that the config computes; it is returned.
    Dropout and other settings of training alone are kept where the family has a field for them.
    Weights are written as `dtype` (default: as they are), in files of at most `max_shard_bytes`,
    one file in memory at a time.

    Raises:
        ValueError: before anything is written, naming what the family cannot carry.
        FileExistsError: the directory holds a model.
    """
    directory = Path(directory)
    for name in ("config.json", SINGLE, INDEX):
        if (directory / name).exists():
            raise FileExistsError(f"{directory / name}: exists already; choose another directory")
    chosen = choose_family(transformer.config, family)
    dtype = dtype or transformer.tokens.weight.dtype
    values = describe(transformer, chosen, tokenizer, dtype)
    directory.mkdir(parents=True, exist_ok=True)
    _write_weights(transformer, chosen, directory, dtype, max_shard_bytes)
    write_json(directory / "config.json", values)
    return chosen


def describe(
    transformer: Transformer, family: Family, tokenizer: Tokenizer | None, dtype: torch.dtype
) -> dict[str, Any]:
    """What config.json says."""
    return (
        family.write(transformer.config)
        | token_ids(family, tokenizer, transformer.config.vocab_size or 0)
        | {"dtype": str(dtype).removeprefix("torch.")}
    )


def _write_weights(
    transformer: Transformer, family: Family, directory: Path, dtype: torch.dtype, most: int
) -> None:
    state = restored_state(transformer)
    shards: list[list[Rule]] = [[]]
    sizes = [0]
    for rule in rules(transformer.config, NAMES[family.model_type]):
        size = state[rule.ours].numel() * dtype.itemsize
        if shards[-1] and sizes[-1] + size > most:
            shards.append([])
            sizes.append(0)
        shards[-1].append(rule)
        sizes[-1] += size
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        several = f"model-{number:05}-of-{len(shards):05}.safetensors"
        name = SINGLE if len(shards) == 1 else several
        tensors: dict[str, Tensor] = {}
        for rule in shard:
            ours = state[rule.ours].detach().to("cpu", dtype)
            tensors |= {theirs: part.clone() for theirs, part in rule.write(ours).items()}
        partial = directory / f"{name}.partial"
        save_file(tensors, partial, metadata={"format": "pt"})
        os.replace(partial, directory / name)
        places |= dict.fromkeys(tensors, name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": places}
        write_json(directory / INDEX, index)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """An object, its keys in order."""
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def token_ids(family: Family, tokenizer: Tokenizer | None, vocab_size: int) -> dict[str, Any]:
    """Ids of the pieces that generation needs; null where the tokenizer or the network has none."""
    ids: dict[str, Any] = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))
    if tokenizer is not None:
        known = zip(ids, (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id), strict=True)
        ids = {name: id if id < vocab_size else None for name, id in known}
    if {"encoder", "decoder"} <= family.stacks:
        start = ids["pad_token_id"]  # their decoders, like ours, read pad first
        ids |= {"decoder_start_token_id": 0 if start is None else start}
        ids |= {"forced_eos_token_id": ids["eos_token_id"]} if family.model_type == "marian" else {}
    return ids


def choose_family(config: TransformerConfig, name: str | None = None) -> Family:
    """The family that carries the config, or ValueError with what the nearest cannot carry."""
    if name is not None and name not in FAMILIES:
        raise ValueError(f"family ({name}) is unsupported; supported: {', '.join(FAMILIES)}")
    stacks = {each for each in ("encoder", "decoder") if getattr(config, each) is not None}
    named = [family for family in FAMILIES.values() if name in (None, family.model_type)]
    fitting = [family for family in named if family.stacks == stacks]
    if not fitting:
        raise ValueError(
            f"family ({name}) has {' and '.join(sorted(named[0].stacks))}, but the transformer has "
            f"{' and '.join(sorted(stacks))}; choose another family"
        )
    lost = {family.model_type: losses(config, family) for family in fitting}
    nearest = min(fitting, key=lambda family: len(lost[family.model_type]))
    if lost[nearest.model_type]:
        raise ValueError(
            f"Hugging Face's {nearest.model_type} cannot carry "
            f"{'; '.join(lost[nearest.model_type])}; train with what it has to export it"
        )
    return nearest


def losses(config: TransformerConfig, family: Family) -> list[str]:
    """What of a config the family would change: path, value, and what it would become."""
    before = resolve(config)
    after = resolve(family.read(family.write(config), Path("config.json")))
    return [
        f"{path} ({before[path]}), only {after[path]}"
        for path in before
        if not is_training_only(path) and not _same(before[path], after[path])
    ]


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-9)
    return bool(left == right)
