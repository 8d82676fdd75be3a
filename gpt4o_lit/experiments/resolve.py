"""Variants as whole configs, each read and built as `fit` would before anything starts."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import yaml

from gpt4o_lit.cli import Experiment, read_experiment
from gpt4o_lit.experiments.changes import Changes, Entry, class_name, edited
from gpt4o_lit.experiments.grid import Grid
from gpt4o_lit.parse_errors import HINT


@dataclass(frozen=True, kw_only=True)
class Variant:
    """An experiment of a grid."""

    name: str
    changes: list[str]
    """What it changes in the base, a line each."""
    text: str
    """Its whole config, as YAML."""
    experiment: Experiment
    """Task, data and settings."""

    @property
    def config(self) -> dict[str, Any]:
        """The whole config."""
        return dict(yaml.safe_load(self.text))


def resolve_grid(grid: Grid) -> list[Variant]:
    """Every variant, that which others are compared to among them.

    Raises:
        ValueError: `fit` would not read one, or two are the same experiment.
    """
    plain = _resolved(grid, "base", Changes())
    keys = list(flattened(plain.config))
    found = []
    for name, changes in grid.all_variants.items():
        same = changes == Changes()
        found.append(replace(plain, name=name) if same else _resolved(grid, name, changes, keys))
    _require_distinct(grid, found)
    return found


def _resolved(grid: Grid, name: str, changes: Changes, keys: list[str] | None = None) -> Variant:
    flags = [*grid.base.flags, f"--name={grid.name}", *changes.flags]
    try:
        if grid.base.edits_callbacks or changes.edits_callbacks:
            callbacks = edited(edited(_callbacks(read_experiment(flags)), grid.base), changes)
            flags.append("--trainer.callbacks=" + json.dumps(callbacks))
        experiment = read_experiment(flags)
        experiment.callbacks()
    except (ValueError, OSError) as error:
        words = _with_nearest(str(error), changes if keys else grid.base, keys or [])
        place = f"variant {name}" if keys else "base"
        raise ValueError(f"{grid.name}: {place}: {words}") from error
    return Variant(
        name=name, changes=changes.told(), text=experiment.dumped(), experiment=experiment
    )


def _callbacks(experiment: Experiment) -> list[Entry]:
    return yaml.safe_load(experiment.dumped())["trainer"]["callbacks"] or []


def _with_nearest(words: str, changes: Changes, known: list[str]) -> str:
    """The parser's words, which name the nearest key of its own level alone, with the whole key."""
    for key in changes.keys:
        near = get_close_matches(key, known, 1, cutoff=0.8)
        if key not in known and near and re.search(r"unrecognized|not accepted", words):
            said = words.partition(f"; {HINT}")[0]
            return f"{key} matches nothing ({said}); {HINT} '{near[0]}'?"
    return words


def _require_distinct(grid: Grid, variants: list[Variant]) -> None:
    seen: dict[str, str] = {}
    for variant in variants:
        before = seen.setdefault(variant.text, variant.name)
        if before == variant.name:
            continue
        mend = "change something else in one of them, or leave it out"
        if before == "base":
            mend = f"leave it out, or say `compare_to: {variant.name}` to have it for the base"
        raise ValueError(
            f"{grid.name}: variants {before} and {variant.name} are the same experiment once all "
            f"keys are resolved; {mend}"
        )


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
