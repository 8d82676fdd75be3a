"""Sweep files: a base, keys with ranges or choices, and how points are chosen."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpt4o_lit.experiments.changes import Changes, read_changes, require_word
from gpt4o_lit.experiments.grid import Grid, read_file, read_mode, require_name

KEYS = ("name", "base", "flags", "metric", "mode", "trials", "sampler", "asha", "seed", "search")
SAMPLERS = ("tpe", "random")
RANGE = ("low", "high", "log", "step")
ASHA = ("first", "factor")


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from low to high, both included; whole ones where both are."""

    low: float
    high: float
    log: bool = False
    """As many below their geometric mean as above it."""
    step: float | None = None
    """Multiples of it above low alone."""


@dataclass(frozen=True, kw_only=True)
class Asha:
    """Asynchronous successive halving (arXiv:1810.05934): most runs are stopped early."""

    first: int
    """Steps before the first decision; the next ones come at `factor` times as many."""
    factor: int = 3
    """Of so many runs that came as far one goes on."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A search over keys."""

    name: str
    base: Changes
    metric: str
    mode: Literal["min", "max"]
    trials: int
    sampler: str
    seed: int
    asha: Asha | None
    search: dict[str, Range | list[Any]]
    """A range or a list of choices for each key."""

    def grid(self, keys: Mapping[str, Any]) -> Grid:
        """The experiment at a point of the search."""
        return Grid(
            name=self.name,
            base=self.base,
            variants={"point": read_changes(keys)},
            seeds=(0,),
            metric=self.metric,
            mode=self.mode,
            compare_to="point",
        )


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file.

    Raises:
        ValueError: it is none; the message names the place and the mend.
    """
    return read_file(path, _read)


def _read(values: Any, stem: str) -> Sweep:
    if not isinstance(values, Mapping):
        raise ValueError("a sweep file is a mapping; docs/sweeps.md shows one")
    for key in values:
        require_word(str(key), str(key), KEYS, "sweep")
    for key in ("base", "search"):
        if not values.get(key):
            raise ValueError(f"{key} is missing; write it as docs/sweeps.md shows")
    name, sampler = str(values.get("name", stem)), str(values.get("sampler", "tpe"))
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler ({sampler}) must be {' or '.join(SAMPLERS)}")
    search = values["search"]
    if not isinstance(search, Mapping):
        raise ValueError(f"search ({search!r}) must map keys to ranges or lists of choices")
    require_name(name)
    return Sweep(
        name=name,
        base=read_changes({"config": values["base"]}).with_(read_changes(values.get("flags"))),
        metric=str(values.get("metric", "val/loss")),
        mode=read_mode(values.get("mode", "min")),
        trials=_whole("trials", values.get("trials", 20), least=1),
        sampler=sampler,
        seed=_whole("seed", values.get("seed", 0), least=0),
        asha=_read_asha(values.get("asha")),
        search={str(key): _read_space(str(key), each) for key, each in search.items()},
    )


def _read_asha(given: Any) -> Asha | None:
    if given is None:
        return None
    if not isinstance(given, Mapping) or "first" not in given:
        raise ValueError(f"asha ({given!r}) needs its first steps; write asha: {{first: 50}}")
    for word in given:
        require_word(f"asha.{word}", str(word), ASHA, "sweep")
    return Asha(
        first=_whole("asha.first", given["first"], least=1),
        factor=_whole("asha.factor", given.get("factor", 3), least=2),
    )


def _read_space(key: str, given: Any) -> Range | list[Any]:
    if isinstance(given, list) and given:
        return given
    if not isinstance(given, Mapping) or not {"low", "high"} <= given.keys():
        raise ValueError(f"{key} ({given!r}) must be a list of choices or {{low: A, high: B}}")
    for word in given:
        require_word(f"{key}: {word}", str(word), RANGE, "sweep")
    values = {name: _number(key, given[name]) for name in ("low", "high")}
    step = None if given.get("step") is None else _number(key, given["step"])
    found = Range(**values, log=bool(given.get("log", False)), step=step)
    if found.low >= found.high or (found.log and (found.low <= 0 or found.step is not None)):
        raise ValueError(
            f"{key} ({dict(given)}): low must be below high, and with log above 0 and without step"
        )
    return found


def _whole(key: str, given: Any, least: int) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or given < least:
        raise ValueError(f"{key} ({given!r}) must be a whole number of at least {least}")
    return given


def _number(key: str, given: Any) -> float:
    try:
        return given if isinstance(given, int) else float(given)  # YAML reads 1e-3 as a word
    except (TypeError, ValueError):
        raise ValueError(f"{key}: {given!r} is no number; write low and high as numbers") from None
