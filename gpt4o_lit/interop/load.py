"""Reads a Hugging Face directory: its config in our words, its tensors by our names."""

import dataclasses
import re
from pathlib import Path

import torch
from torch import Tensor

from gpt4o_lit.interop.families import FAMILIES
from gpt4o_lit.interop.family import Family
from gpt4o_lit.interop.files import TensorFiles, read_json
from gpt4o_lit.interop.names import NAMES, Names
from gpt4o_lit.interop.tensors import Shape, rules
from gpt4o_lit.model import Transformer, TransformerConfig


class HuggingFaceModel:
    """A model that Hugging Face's save_pretrained wrote: its config, and its weights one by one.

    Raises ValueError or FileNotFoundError with the file, the field or tensor, and the mend.
    """

    def __init__(self, directory: Path | str) -> None:
        directory = Path(directory)
        family, config = read_config(directory / "config.json")
        self._tensors = NamedTensors(TensorFiles(directory), NAMES[family.model_type])
        tied = self._tensors.tied(family, config)
        self.config = dataclasses.replace(config, tie_embeddings=tied)
        """In our words."""
        self.rules = {rule.ours: rule for rule in rules(self.config, self._tensors.names)}
        """By our name; a tied head has none of its own."""
        theirs = {name for rule in self.rules.values() for name in rule.theirs}
        self._tensors.refuse_unknown(theirs)
        for rule in self.rules.values():
            for name, shape in rule.theirs.items():
                self._tensors.require(name, shape)

    def dtype(self, name: str) -> torch.dtype:
        """In which a tensor is stored, by our name."""
        return self._tensors.dtype(next(iter(self.rules[name].theirs)))

    def read(self, name: str) -> Tensor:
        """A tensor by our name, as stored."""
        return self.rules[name].read(self._tensors.get)

    def state(self) -> dict[str, Tensor]:
        """All tensors by our names."""
        state = {name: self.read(name) for name in self.rules}
        return state | (
            {"head.weight": state["tokens.weight"]} if self.config.tie_embeddings else {}
        )


def load_hugging_face(directory: Path | str) -> tuple[TransformerConfig, dict[str, Tensor]]:
    """Config and state of a model that Hugging Face's save_pretrained wrote, in the file's dtype.

    The errors are those of `HuggingFaceModel`.
    """
    model = HuggingFaceModel(directory)
    return model.config, model.state()


def open_hugging_face(directory: Path | str) -> Transformer:
    """The Transformer that a Hugging Face directory holds, in float32, ready to evaluate."""
    config, state = load_hugging_face(directory)
    transformer = Transformer(config)
    transformer.load_state_dict(state)
    return transformer.eval()


def read_config(path: Path) -> tuple[Family, TransformerConfig]:
    """The family and the config that a config.json spells."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; give a directory of Hugging Face")
    values = read_json(path)
    model_type = values.get("model_type")
    if model_type not in FAMILIES:
        raise ValueError(
            f"{path}: model_type ({model_type!r}) is unsupported; supported: {', '.join(FAMILIES)}"
        )
    family = FAMILIES[model_type]
    return family, family.read(values, path)


class NamedTensors:
    """The tensors of a directory under the full names of the family."""

    def __init__(self, files: TensorFiles, names: Names) -> None:
        self.files, self.names = files, names
        whole = any(name.startswith(names.prefix) for name in files.places)
        self.stored = {self._full(name, whole): name for name in files.places}

    def _full(self, name: str, whole: bool) -> str:
        name = name if whole else self.names.prefix + name
        return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name).replace(
            "LayerNorm.beta", "LayerNorm.bias"
        )

    def require(self, name: str, shape: Shape) -> None:
        """Refuse a tensor that is missing or of another shape."""
        if name not in self.stored:
            raise ValueError(
                f"{self.files.directory}: tensor {name} is missing; copy the model again"
            )
        path, found = self.files.places[self.stored[name]], self.files.shape(self.stored[name])
        if found != shape:
            raise ValueError(
                f"{path}: tensor {name} has shape {found}, but config.json asks for {shape}; "
                "use the config.json of these weights"
            )

    def get(self, name: str, shape: Shape) -> Tensor:
        """A tensor of this shape."""
        self.require(name, shape)
        return self.files.get(self.stored[name])

    def dtype(self, name: str) -> torch.dtype:
        """In which a tensor is stored."""
        return self.files.dtype(self.stored[name])

    def tied(self, family: Family, config: TransformerConfig) -> bool:
        """Whether the head is the embedding: two that differ are not tied."""
        head, embedding = self.names.head, self.names.embedding
        if head not in self.stored:
            return config.tie_embeddings or family.ties_without_head
        if not config.tie_embeddings or embedding not in self.stored:
            return config.tie_embeddings
        shape = self.files.shape(self.stored[embedding])
        return torch.equal(self.get(head, shape), self.get(embedding, shape))

    def refuse_unknown(self, known: set[str]) -> None:
        """Refuse a tensor that no rule reads, for then the model computes something else."""
        for name in sorted(self.stored.keys() - known - {self.names.head}):
            if not any(re.fullmatch(pattern, name) for pattern in self.names.unread):
                raise ValueError(
                    f"{self.files.places[self.stored[name]]}: tensor {name} is unknown for this "
                    "model_type and config; use the config.json of these weights"
                )
