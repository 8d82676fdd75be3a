"""Which weights of a network are made smaller: by the kind of their layer and by its name."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Literal, get_args

from torch import Tensor, nn

from gpt4o_lit.model import Transformer
from gpt4o_lit.model.attention import Attention, CrossAttention
from gpt4o_lit.model.feed_forward import FeedForward, GatedFeedForward
from gpt4o_lit.model.head import Head
from gpt4o_lit.model.linear import Embedding, Linear

LayerKind = Literal["attention", "feed_forward", "embeddings", "head"]

OWNERS: dict[str, tuple[type[nn.Module], ...]] = {
    "attention": (Attention, CrossAttention),
    "feed_forward": (FeedForward, GatedFeedForward),
}


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Matrices that are chosen; norms and biases never are."""

    kinds: tuple[LayerKind, ...] = ("attention", "feed_forward")
    """Kinds of layers; embeddings and head are left out unless they are named here."""
    names: tuple[str, ...] = ("*",)
    """Patterns, one of which a layer's name must match, such as decoder.blocks.[0-3].*"""
    but_not: tuple[str, ...] = ()
    """Patterns of names that are left out all the same, such as *.output"""

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in get_args(LayerKind)]
        if unknown:
            raise ValueError(
                f"kinds ({unknown[0]!r}) is unknown; choose from {', '.join(get_args(LayerKind))}"
            )
        if not self.kinds:
            raise ValueError("kinds is empty; name a kind such as feed_forward")

    def weights(self, network: Transformer) -> dict[str, Tensor]:
        """The chosen matrices by the names of their layers, in the network's order.

        Raises:
            ValueError: a pattern matches no layer of these kinds, or all are left out.
        """
        layers = dict(_layers(network, self.kinds))
        for pattern in (*self.names, *self.but_not):
            if not any(fnmatchcase(name, pattern) for name in layers):
                near = get_close_matches(pattern, layers, n=1, cutoff=0.0)
                raise ValueError(
                    f"the pattern {pattern} matches no layer of the kinds {', '.join(self.kinds)}; "
                    + (f"a layer is called {near[0]}" if near else "name other kinds")
                )
        chosen = {
            name: weight
            for name, weight in layers.items()
            if _matches(name, self.names) and not _matches(name, self.but_not)
        }
        if not chosen:
            raise ValueError(
                f"but_not ({', '.join(self.but_not)}) leaves no layer; take a pattern out of it"
            )
        return chosen


def _layers(network: Transformer, kinds: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    """Every layer of these kinds and its matrix; a tied one belongs to the embeddings."""
    owners = tuple(owner for kind in kinds for owner in OWNERS.get(kind, ()))
    tied = network.head.weight is network.tokens.weight
    for name, module in network.named_modules():
        if isinstance(module, owners):
            for part, layer in module.named_children():
                if isinstance(layer, Linear):
                    yield f"{name}.{part}", layer.weight
        elif isinstance(module, Embedding) and "embeddings" in kinds:
            yield name, module.weight
        elif isinstance(module, Head) and "head" in kinds:
            if not tied:
                yield name, module.weight
            if module.transform is not None:
                yield f"{name}.transform", module.transform.weight


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
