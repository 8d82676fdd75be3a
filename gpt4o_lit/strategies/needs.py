"""What a part of a run may need that a strategy does not have, and how it is refused."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging


@dataclass(frozen=True)
class Need:
    """Whoever has it says so by a class attribute, or is of a kind that cannot."""

    attribute: str
    why: str
    """What is told behind the part's name; `{strategy}` is the strategy's."""
    instead: str
    """An overlay under which it can be."""
    kinds: tuple[type, ...] = ()
    """Classes of others that have no such attribute."""

    def is_of(self, part: Any) -> bool:
        """Whether a callback, optimizer or task has it, or all of a class have."""
        kind = part if isinstance(part, type) else type(part)
        return bool(getattr(part, self.attribute, False)) or issubclass(kind, self.kinds)


WHOLE_WEIGHTS = Need(
    "needs_whole_weights",
    "needs weights that are whole, and {strategy} holds parts of them",
    "with/ddp",
)
GRADIENTS = Need(
    "needs_gradients",
    "looks at gradients before a step, and {strategy} keeps them to itself",
    "with/fsdp2",
)
WHOLE_VOCABULARY = Need(
    "needs_whole_vocabulary",
    "needs the logits of all pieces, and {strategy} holds parts of them",
    "with/fsdp2",
)
WHOLE_LAYERS = Need(
    "needs_whole_layers",
    "changes what a whole layer computes, and {strategy} has parts of layers",
    "with/fsdp2",
)
A_COPY = Need(
    "needs_a_copy",
    "copies a network, and {strategy}'s cannot be copied",
    "with/ddp",
    (WeightAveraging, StochasticWeightAveraging),
)
NEEDS = (WHOLE_WEIGHTS, WHOLE_LAYERS, A_COPY, WHOLE_VOCABULARY, GRADIENTS)


def unmet(part: Any, lacks: Iterable[Need]) -> Need | None:
    """The first of what a strategy lacks that a part of a run, or all of a class, needs."""
    return next((need for need in lacks if need.is_of(part)), None)


def require_no_needs(strategy: str, lacks: Iterable[Need], parts: Iterable[Any]) -> None:
    """Refuse parts of a run that need what a strategy lacks.

    Raises:
        ValueError: one of them is on and needs it; it is named.
    """
    lacks = tuple(lacks)
    for part in parts:
        need, name = unmet(part, lacks), type(part).__name__
        if need is not None and getattr(part, "enabled", True):
            why = need.why.format(strategy=strategy)
            raise ValueError(f"{name} {why}; take --config {need.instead}, or leave {name} out")
