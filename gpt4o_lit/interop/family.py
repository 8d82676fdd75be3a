"""How a Hugging Face family spells a TransformerConfig: one table, read in both directions."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt4o_lit.interop.fields import Field, Fields
from gpt4o_lit.interop.paths import nest, resolve
from gpt4o_lit.model import TransformerConfig

Flat = dict[str, Any]

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model_type of Hugging Face."""

    model_type: str
    """Their name, in config.json."""
    architecture: str
    """Their class with the head that gives logits."""
    fields: tuple[Field, ...]
    """Fields that have one value on either side."""
    ours: Flat
    """What every model of the family has, in our words."""
    must: Flat = field(default_factory=dict)
    """Values that their fields must have where they are given."""
    writes: Flat = field(default_factory=dict)
    """Constants of theirs that are written."""
    ties_without_head: bool = False
    """Whether a file without a head is tied, whatever config.json says (T5)."""
    read_rest: Callable[[Fields], Flat] = lambda _: {}
    """What needs more than one field: theirs to ours."""
    write_rest: Callable[[Flat], Flat] = lambda _: {}
    """The same, ours to theirs."""

    @property
    def stacks(self) -> set[str]:
        """The stacks that the family has."""
        return {path.split(".")[0] for path in self.ours if "." in path}

    def read(self, values: Flat, path: Path) -> TransformerConfig:
        """The config that a config.json spells."""
        fields = Fields(values, path)
        for name, expected in {"quantization_config": None, **self.must}.items():
            fields.must_be(name, expected)
        flat = dict(self.ours)
        for each in self.fields:
            flat |= fields.read(each)
        flat |= self.read_rest(fields)
        try:
            config = TransformerConfig.from_dict(nest(flat))
            return TransformerConfig.from_dict(nest(resolve(config)))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def write(self, config: TransformerConfig) -> Flat:
        """The nearest config.json; reading it back shows what the family could not carry."""
        flat = resolve(config)
        values = {each.theirs: each.write(flat) for each in self.fields}
        head = {"architectures": [self.architecture], "model_type": self.model_type}
        return head | self.writes | values | self.write_rest(flat)


def both(path: str) -> tuple[str, ...]:
    """The path in either stack."""
    return f"encoder.{path}", f"decoder.{path}"


def stack_of(name: str, values: Flat) -> Flat:
    """The values of one stack as paths."""
    return {f"{name}.{path}": value for path, value in values.items()}


def both_of(values: Flat) -> Flat:
    """The values of either stack as paths."""
    return stack_of("encoder", values) | stack_of("decoder", values)
