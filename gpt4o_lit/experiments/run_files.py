"""A run as the files of its directory tell it."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from gpt4o_lit.run_directory import RunDirectory, read_metrics

ABLATION = "ablation.json"
NOT_THE_EXPERIMENT = ("seed_everything", "name", "run_dir", "ckpt_path", "progress",
                      "data.init_args.seed")  # fmt: skip
"""Keys in which runs of one variant may differ, and what is under them."""
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Pure Python takes 40 ms to read the config of a run."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run and what it left."""

    path: Path
    variant: str
    seed: int
    changes: tuple[str, ...] = ()
    """What an ablation changed, as flags."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Each value by its dotted key; the run's own directory is written RUN."""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    """What metrics.csv has of each: values, with the optimizer steps that were done by then."""
    left_out: str | None = None
    """Why no statistics have it; None where they do."""

    @property
    def steps(self) -> int:
        """Optimizer steps that were done when it last logged; 0 if it never did."""
        return max((points[-1][0] for points in self.metrics.values()), default=0)


def run_folders(given: str) -> Iterator[Path]:
    """Runs and ablations in a directory, the outermost: a run's own checkpoints have a config.

    Raises:
        FileNotFoundError: there is none.
    """
    found = False
    for path, below, files in os.walk(given):
        below[:] = sorted(name for name in below if not name.startswith("."))
        if ABLATION in files or "config.yaml" in files:
            found = True
            below.clear()
            yield Path(path)
    if not found:
        raise FileNotFoundError(
            f"{given} is no run directory and has none below: there is no config.yaml and no "
            f"{ABLATION}; give what `gpt4o-lit fit` or `gpt4o-lit ablate` wrote"
        )


def read_plan(folder: Path) -> dict[str, Any]:
    """What an ablation says of itself: metric, mode, base, runs.

    Raises:
        ValueError: it is damaged, or has no runs.
    """
    path = folder / ABLATION
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for run in told["runs"]:
            run["variant"], int(run["seed"]), run["directory"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}); each of its runs needs variant, "
            "seed and directory"
        ) from error
    if not told["runs"]:
        raise ValueError(f"{path} has no runs; start them with `gpt4o-lit ablate`")
    return told


def planned_run(folder: Path, entry: Mapping[str, Any]) -> Run:
    """A run of an ablation, whether it has begun or not."""
    path = folder / entry["directory"]
    names = {"variant": entry["variant"], "seed": int(entry["seed"])}
    changes = tuple(entry.get("changes", ()))
    if not RunDirectory(path).config.is_file():
        return Run(path=path, changes=changes, left_out="it has not started", **names)
    return replace(read_run(path), changes=changes, **names)


def read_run(path: Path) -> Run:
    """A run of which nobody has said yet what variant it is."""
    try:
        values = yaml.load(RunDirectory(path).config.read_text(encoding="utf-8"), LOADER)
        manifest = path / "manifest.json"
        made = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
        metrics = _by_metric(read_metrics(path / "metrics.csv"))
        if not isinstance(values, dict):
            raise ValueError("config.yaml is no mapping")
    except (ValueError, yaml.YAMLError) as error:
        return Run(path=path, variant="", seed=0, left_out=f"it is damaged: {error}")
    home = str(values.get("trainer", {}).get("default_root_dir") or path)
    config = dict(_flat(values, home))
    seed = made.get("seed", config.get("seed_everything", 0))
    read = Run(path=path, variant="", seed=int(seed), config=config, manifest=made, metrics=metrics)
    return replace(read, left_out=_unfinished(read))


def _flat(value: Any, home: str, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a config by its dotted key."""
    children: Any = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
        children = enumerate(value)
    if children:
        for name, child in children:
            yield from _flat(child, home, f"{key}.{name}" if key else str(name))
    elif isinstance(value, str) and (value == home or value.startswith(f"{home}/")):
        yield key, f"RUN{value.removeprefix(home)}"
    else:
        yield key, value


def _by_metric(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ("step", "epoch"):
                found.setdefault(name, []).append((row["step"] + 1, value))
    return found


def _unfinished(run: Run) -> str | None:
    made = run.manifest
    if "error" in made:
        return f"it failed: {made['error']}"
    if not run.metrics:
        return "it has logged nothing"
    ended = made.get("steps", 0) if "ended" in made else 0
    goes_on = "process" in made or "stopped" in made
    if goes_on or run.steps > ended:  # also where it had ended, and was then told to go on
        return f"it has not finished: its log ends at step {run.steps:,}"
    return None


def experiment_of(run: Run) -> dict[str, Any]:
    """The config without seeds, names and places: what runs of one variant share."""
    hidden = tuple(f"{key}." for key in NOT_THE_EXPERIMENT)
    return {
        key: value
        for key, value in run.config.items()
        if key not in NOT_THE_EXPERIMENT and not key.startswith(hidden)
    }
