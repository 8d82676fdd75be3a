"""Configs as dotted keys and values, and in what two of them differ."""

from collections.abc import Iterator
from typing import Any

from gpt4o_lit.experiments.changes import class_name


def flattened(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys and their values; a callback or logger goes by the name of its class."""
    return dict(_leaves(config, prefix))


def _leaves(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _leaves(each, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and value and all(_is_entry(each) for each in value):
        for each in value:
            yield f"{prefix}.{class_name(each)}", "yes"
            yield from _leaves(each.get("init_args") or {}, f"{prefix}.{class_name(each)}")
    elif value not in ({}, []) or not prefix:
        yield prefix, value


def _is_entry(value: Any) -> bool:
    return isinstance(value, dict) and "class_path" in value


def difference(ours: Any, theirs: Any) -> dict[str, tuple[Any, Any]]:
    """Dotted keys in which two configs differ, with both values; None stands for no such key."""
    a, b = flattened(ours), flattened(theirs)
    keys = [*a, *(key for key in b if key not in a)]
    return {key: (a.get(key), b.get(key)) for key in keys if a.get(key) != b.get(key)}
