"""A Hugging Face directory as a run that every verb opens."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.serialization import skip_data

from gpt4o_lit.interop.checkpoint_file import PART, seal
from gpt4o_lit.interop.files import read_json
from gpt4o_lit.interop.load import HuggingFaceModel
from gpt4o_lit.interop.load_tokenizer import load_hugging_face_tokenizer
from gpt4o_lit.interop.run import PREFIX
from gpt4o_lit.model import TransformerConfig
from gpt4o_lit.run_directory import RunDirectory
from gpt4o_lit.tokenizer import FastTokenizer, Tokenizer

HUB_FILES = ["*.safetensors", "*.json", "*.model", "*.spm"]


@dataclass(frozen=True)
class Imported:
    """What was written, and from what."""

    run: RunDirectory
    config: TransformerConfig
    tokenizer: Tokenizer
    num_parameters: int
    """Tied weights count once."""
    dtype: torch.dtype
    """Of the weights, as they were."""


def import_hugging_face(source: Path, name: str, run_dir: str | None = None) -> Imported:
    """A run of its own with weights, config and tokenizer; one tensor is in memory at a time.

    Raises:
        ValueError: the model is of a family that we lack, a tensor does not fit, or the tokenizer
            has ids that the embedding lacks.
        FileNotFoundError: a file is missing.
    """
    tokenizer = load_hugging_face_tokenizer(source)
    model = HuggingFaceModel(source)
    config = model.config
    size = config.vocab_size or 0
    if own_pieces(tokenizer) > size:
        raise ValueError(
            f"{source}: the tokenizer has {own_pieces(tokenizer)} pieces, but the embedding only "
            f"{size} rows; use the tokenizer of these weights"
        )
    run = RunDirectory.fresh(name, run_dir)
    tokenizer.save(run.path / "tokenizer")
    settings = {
        "name": name,
        "model": {"init_args": {"transformer": config.to_dict()}},
        "data": {"init_args": {"corpus": {"add_bos": adds_bos(source, tokenizer)}}},
    }
    run.config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    manifest = {"imported_from": str(source.resolve()), "tokenizer": tokenizer.fingerprint}
    (run.path / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    run.checkpoints.mkdir(exist_ok=True)
    part = run.checkpoints / f"best.ckpt{PART}"
    is_pair = config.encoder is not None and config.decoder is not None
    others = {"tokenizer_fingerprint": tokenizer.fingerprint, "source_eos": is_pair}
    _write_checkpoint(model, others, part)
    seal(part)
    part.rename(run.checkpoints / "best.ckpt")
    num_parameters = sum(math.prod(rule.shape) for rule in model.rules.values())
    return Imported(run, config, tokenizer, num_parameters, model.dtype("tokens.weight"))


def _write_checkpoint(model: HuggingFaceModel, others: dict[str, Any], path: Path) -> None:
    """A checkpoint whose tensors are written one by one, into places that were left for them."""
    with FakeTensorMode(), skip_data(materialize_fake_tensors=True):
        state = {
            PREFIX + name: torch.empty(rule.shape, dtype=model.dtype(name))
            for name, rule in model.rules.items()
        }
        if model.config.ties_head:
            state[f"{PREFIX}head.weight"] = state[f"{PREFIX}tokens.weight"]
        config = model.config.to_dict()
        torch.save({"state_dict": state, "transformer_config": config, **others}, path)
    with FakeTensorMode():
        left = torch.load(path, weights_only=True)["state_dict"]
    with path.open("r+b") as file:
        for name in model.rules:
            place: Any = left[PREFIX + name].untyped_storage()
            file.seek(place._checkpoint_offset)
            file.write(model.read(name).reshape(-1).view(torch.uint8).numpy().data)


def find_model(name: str) -> Path:
    """The directory of a model: itself, or downloaded from the hub by OWNER/NAME.

    Raises:
        FileNotFoundError: there is no such directory, and it is no name that the hub gives.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if path.exists() or name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"{name} is no directory; give one that save_pretrained wrote")
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise FileNotFoundError(
            f"{name} is no directory, and the hub needs huggingface_hub; "
            "pip install 'gpt4o-lit[hf]'"
        ) from error
    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FileNotFoundError(
            f"{name} is no directory, and the hub does not give it ({reason})"
        ) from error


def own_pieces(tokenizer: Tokenizer) -> int:
    """Pieces that a model's own files have, those that we append aside."""
    return int(getattr(tokenizer, "num_pieces", tokenizer.vocab_size))


def adds_bos(source: Path, tokenizer: Tokenizer) -> bool:
    """Whether the model wants bos before a text."""
    if isinstance(tokenizer, FastTokenizer):
        return tokenizer.opens_with_bos
    settings = source / "tokenizer_config.json"
    return settings.exists() and read_json(settings).get("add_bos_token") is True
