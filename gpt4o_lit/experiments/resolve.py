"""Variants as whole configs, each read and built as `fit` would before anything starts."""

import json
import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import yaml

from gpt4o_lit.experiments.changes import Changes, Entry, edited
from gpt4o_lit.experiments.experiment import Experiment, read_experiment
from gpt4o_lit.experiments.grid import Grid
from gpt4o_lit.experiments.run_files import LOADER
from gpt4o_lit.experiments.settings import flattened
from gpt4o_lit.parse_errors import HINT

CALLBACKS = "trainer.callbacks"
NO_PATH = re.compile(r"Expected a path but .* either not accessible or invalid ")
"""What the parser says of a list before it says what is wrong in it."""


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

    @cached_property
    def config(self) -> dict[str, Any]:
        """The whole config."""
        return dict(yaml.load(self.text, LOADER))


def resolve_grid(grid: Grid) -> list[Variant]:
    """Every variant, that which others are compared to among them.

    Raises:
        ValueError: `fit` would not read one, or two are the same experiment.
    """
    resolver = _Resolver(grid)
    plain = resolver.resolved("base", Changes())
    resolver.known = list(flattened(plain.config))
    found = []
    for name, changes in grid.all_variants.items():
        same = changes == Changes()
        found.append(replace(plain, name=name) if same else resolver.resolved(name, changes))
    _require_distinct(grid, found)
    return found


class _Resolver:
    """Reads variants; knows the keys of the base, and callbacks that it has read before."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.known: list[str] = []
        self._callbacks: dict[tuple[str, ...], list[Entry]] = {}

    def resolved(self, name: str, changes: Changes) -> Variant:
        base = self.grid.base
        flags = [*base.flags, f"--name={self.grid.name}", *changes.flags]
        try:
            if base.edits_callbacks or changes.edits_callbacks:
                callbacks = edited(edited(self.callbacks(changes, flags), base), changes)
                flags.append("--trainer.callbacks=" + json.dumps(callbacks))
            experiment = read_experiment(flags)
            experiment.callbacks()
        except (ValueError, OSError) as error:
            place = f"variant {name}" if self.known else "base"
            said = NO_PATH.sub("", str(error))
            words = _with_nearest(said, changes if self.known else base, self.known)
            raise ValueError(f"{self.grid.name}: {place}: {words}") from error
        text = experiment.dumped()
        return Variant(name=name, changes=changes.told(), text=text, experiment=experiment)

    def callbacks(self, changes: Changes, flags: list[str]) -> list[Entry]:
        """Those that there are before any is edited: overlays bring them."""
        if changes.configs not in self._callbacks or CALLBACKS in changes.keys:
            text = read_experiment(flags).dumped()
            found = yaml.load(text, LOADER)["trainer"]["callbacks"] or []
            if CALLBACKS in changes.keys:
                return list(found)
            self._callbacks[changes.configs] = found
        return self._callbacks[changes.configs]


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
