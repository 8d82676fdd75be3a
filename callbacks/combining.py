"""Which callbacks cannot be on at once."""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from lightning import Callback

Refused = dict[type, str]
"""By kind of callback: what such a one does, and what to do. Callbacks have it as `refuses`; one of
two is enough."""


def require_combinable(callback: Any, trainer: Any) -> None:
    """Refuse a callback beside one that it cannot be with, before training.

    Raises:
        ValueError: naming both and the mend.
    """
    for other in trainer.callbacks:
        for kind, why in callback.refuses.items():
            if isinstance(other, kind) and getattr(other, "enabled", True):
                raise ValueError(f"{type(other).__name__} {why}")


def ours_by_name() -> dict[str, type[Callback]]:
    """The callbacks of this package."""
    package: Any = importlib.import_module("gpt4o_lit.callbacks")
    kinds = {name: getattr(package, name) for name in package.__all__}
    return {name: kind for name, kind in kinds.items() if is_callback(kind)}


def is_callback(kind: Any) -> bool:
    """Whether it is a class that a Trainer takes."""
    return isinstance(kind, type) and issubclass(kind, Callback)


def cannot_be_with(kind: type, others: Mapping[str, type]) -> Iterator[str]:
    """The names of those that a kind of callback refuses, or is refused by."""
    for name, other in others.items():
        pairs = ((kind, other), (other, kind))
        if any(issubclass(b, c) for a, b in pairs for c in getattr(a, "refuses", {})):
            yield name
