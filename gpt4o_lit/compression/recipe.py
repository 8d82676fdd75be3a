"""Which weights of a network are stored in which format."""

from dataclasses import dataclass
from typing import Any

from gpt4o_lit.compression.targets import Targets
from gpt4o_lit.model import Transformer
from gpt4o_lit.model.products import Int4Product
from gpt4o_lit.model.weight_format import WeightFormat

INT8 = WeightFormat()
EVERYTHING = Targets(kinds=("attention", "feed_forward", "embeddings", "head"))


@dataclass(frozen=True, kw_only=True)
class FormatRule:
    """Some weights, and their format."""

    targets: Targets
    """The weights."""
    format: WeightFormat | None
    """How they are stored; null: as they are."""


@dataclass(frozen=True, kw_only=True)
class Formats:
    """A format for most weights, and other ones for some."""

    format: WeightFormat = INT8
    """Of the weights that no rule is for. Default: int8."""
    targets: Targets = EVERYTHING
    """The weights; all but norms, biases and positions by default."""
    rules: tuple[FormatRule, ...] = ()
    """Exceptions; a later one outranks an earlier one."""

    def of(self, network: Transformer) -> dict[str, WeightFormat]:
        """The format of each layer that is quantized, by its name.

        Raises:
            ValueError: a pattern matches nothing, a group does not divide a layer's inputs, or no
                kernel reads the format.
        """
        weights = self.targets.weights(network)
        chosen: dict[str, WeightFormat | None] = dict.fromkeys(weights, self.format)
        for rule in self.rules:
            chosen |= dict.fromkeys(rule.targets.weights(network), rule.format)
        formats = {name: format for name, format in chosen.items() if format is not None}
        for name, format in formats.items():
            _require_kernel(name, format)
            layer: Any = network.get_submodule(name)
            format.require_width(name, layer.weight.shape[-1])
        return formats


def _require_kernel(name: str, format: WeightFormat) -> None:
    if format.bits == 4 and format.group_size not in Int4Product.groups:
        sizes = ", ".join(map(str, Int4Product.groups))
        raise ValueError(
            f"{name}: int4 with group_size ({format.group_size}) has no kernel; set group_size to "
            f"one of {sizes}"
        )
