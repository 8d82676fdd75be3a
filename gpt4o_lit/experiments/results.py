"""What runs left: a study of variants and seeds, read from an ablation or from plain runs."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml

from gpt4o_lit.run_directory import RunDirectory, read_metrics

ABLATION = "ablation.json"
METRIC = "val/loss"
UNREADABLE = "(unreadable)"
"""The variant of runs whose config cannot be read."""
LESS_IS_BETTER = ("loss", "perplexity", "bits_per_byte", "ter", "calibration_error")
MORE_IS_BETTER = ("accuracy", "f1", "sacrebleu", "chrf", "rouge1", "rouge2", "rougeL",
                  "exact_match", "code_match", "matthews")  # fmt: skip
NOT_THE_EXPERIMENT = ("seed_everything", "name", "run_dir", "ckpt_path", "progress",
                      "data.init_args.seed")  # fmt: skip
"""Keys in which runs of one variant may differ, and what is under them."""
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Pure Python takes 40 ms to read the config of a run."""
Mode = Literal["min", "max"]
At = Literal["last", "best"]


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


@dataclass(frozen=True, kw_only=True)
class Study:
    """Variants over seeds, and by what they are judged."""

    name: str
    metric: str
    mode: Mode
    at: At
    base: str
    runs: Sequence[Run]

    @property
    def variants(self) -> list[str]:
        """The base first, the others as they were given."""
        return list(dict.fromkeys([self.base, *(run.variant for run in self.runs)]))

    def finished(self, variant: str | None = None) -> list[Run]:
        """The runs that count, of a variant or all."""
        runs = [run for run in self.runs if run.left_out is None]
        return [run for run in runs if variant is None or run.variant == variant]

    def values(self, variant: str) -> dict[int, float]:
        """What the runs of a variant came to, by seed."""
        return {run.seed: self.value(run) for run in self.finished(variant)}

    def value(self, run: Run) -> float:
        """The metric at the last validation, or at the best one."""
        values = [value for _, value in run.metrics[self.metric]]
        if self.at == "last":
            return values[-1]
        best = min if self.mode == "min" else max
        return best((value for value in values if math.isfinite(value)), default=math.nan)


def read_study(
    directories: Sequence[str],
    *,
    base: str | None = None,
    metric: str | None = None,
    mode: Mode | None = None,
    at: At = "last",
) -> Study:
    """Read an ablation, or runs that are grouped into variants by their configs.

    Args:
        directories: Of an ablation, of runs, or with runs somewhere below.
        base: The variant to compare with, or a run of it. Default: what the ablation says, or the
            first run's.
        metric: By what to judge. Default: what the ablation says, or val/loss.
        mode: Whether less (min) or more (max) of it is better.
        at: At the last validation of a run, or at its best.

    Raises:
        FileNotFoundError: a directory has no run in it.
        ValueError: there is no such base or metric, or no run has finished.
    """
    folders = [folder for given in directories for folder in _folders(given)]
    ablations = [folder for folder in folders if (folder / ABLATION).is_file()]
    if ablations and len(folders) > 1:
        raise ValueError(
            f"{ablations[0]} is an ablation (it has {ABLATION}) and a report is about one ablation "
            "or about plain runs; give it alone, or give the directories of runs"
        )
    told = read_plan(ablations[0]) if ablations else {}
    if ablations:
        runs = [_ablation_run(ablations[0], entry) for entry in told["runs"]]
    else:
        runs = _name_variants([_read_run(folder) for folder in dict.fromkeys(folders)])
    metric = metric or told.get("metric") or METRIC
    for run in runs:
        _require_metric(run, metric)
    mode = mode or (told.get("mode") if metric == told.get("metric") else None) or mode_of(metric)
    study = Study(
        name=str(told.get("name") or Path(directories[0]).resolve().name),
        metric=metric, mode=mode, at=at, runs=runs,
        base=_base(runs, base or told.get("base")),
    )  # fmt: skip
    return _without_what_does_not_count(study)


def _folders(given: str) -> Iterator[Path]:
    """Runs and ablations in a directory, the outermost: a run's own checkpoints have a config."""
    found = False
    for path, below, files in os.walk(given):
        below.sort()
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


def _ablation_run(folder: Path, entry: Mapping[str, Any]) -> Run:
    path = folder / entry["directory"]
    names = {"variant": entry["variant"], "seed": int(entry["seed"])}
    changes = tuple(entry.get("changes", ()))
    if not RunDirectory(path).config.is_file():
        return Run(path=path, changes=changes, left_out="it has not started", **names)
    return replace(_read_run(path), changes=changes, **names)


def _read_run(path: Path) -> Run:
    try:
        values = yaml.load(RunDirectory(path).config.read_text(encoding="utf-8"), LOADER)
        manifest = path / "manifest.json"
        made = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
        metrics = _by_metric(read_metrics(path / "metrics.csv"))
    except (ValueError, yaml.YAMLError) as error:
        return Run(path=path, variant="", seed=0, left_out=f"it is damaged: {error}")
    home = str((values or {}).get("trainer", {}).get("default_root_dir") or path)
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


def _name_variants(runs: list[Run]) -> list[Run]:
    """Group runs by their configs.

    A group is called by the folder that its runs lie in, if no other group has one of that name;
    else by what is unlike the first one's.
    """
    configs = [experiment_of(run) for run in runs]
    groups: list[dict[str, Any]] = []
    for config in configs:
        if config and config not in groups:
            groups.append(config)
    folders: list[set[str]] = [set() for _ in groups]
    for run, config in zip(runs, configs, strict=True):
        if config:
            folders[groups.index(config)].add(run.path.resolve().parent.name)
    names = [next(iter(each)) for each in folders if len(each) == 1]
    if not len(groups) == len(names) == len(set(names)) or len(groups) == 1:
        first = next((str(run.config.get("name", "base")) for run in runs if run.config), "")
        names = [first, *(_unlike(config, groups[0]) for config in groups[1:])]
    counts = Counter(names)
    names = [n if counts[n] == 1 else f"{n} ({k})" for k, n in enumerate(names, 1)]
    return [
        replace(run, variant=names[groups.index(config)] if config else UNREADABLE)
        for run, config in zip(runs, configs, strict=True)
    ]


def _unlike(config: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    keys = [key for key in [*base, *config] if config.get(key) != base.get(key)]
    words = [f"{key.rsplit('.', 1)[-1]}={config.get(key)}" for key in dict.fromkeys(keys)]
    return ", ".join(words) if len(words) <= 2 and len(", ".join(words)) <= 40 else "variant"


def _base(runs: Sequence[Run], given: str | None) -> str:
    names = list(dict.fromkeys(run.variant for run in runs))
    if given is None:
        return next((name for name in names if name != UNREADABLE), UNREADABLE)
    for run in runs:
        if given == run.variant or Path(given).resolve() == run.path.resolve():
            return run.variant
    near = get_close_matches(given, names, 1)
    mend = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(names)}"
    raise ValueError(f"--base: there is no variant '{given}'; {mend}")


def mode_of(metric: str) -> Mode:
    """Whether less or more of a metric is better, by its name.

    Raises:
        ValueError: its name does not tell.
    """
    last = metric.rsplit("/", 1)[-1]
    for names, mode in ((LESS_IS_BETTER, "min"), (MORE_IS_BETTER, "max")):
        if any(last == name or last.endswith(f"_{name}") for name in names):
            return mode  # type: ignore[return-value]
    raise ValueError(
        f"whether less or more of {metric} is better is not known; add --mode min or --mode max"
    )


def _without_what_does_not_count(study: Study) -> Study:
    """Leave out what diverged, and of two runs of one variant and seed the one that ended first."""
    newest: dict[tuple[str, int], Run] = {}
    for run in study.finished():
        if math.isfinite(study.value(run)):
            key = (run.variant, run.seed)
            newest[key] = max(newest.get(key, run), run, key=lambda each: each.manifest["ended"])
    runs = []
    for run in study.runs:
        kept = newest.get((run.variant, run.seed))
        reason = run.left_out
        if reason is None and not math.isfinite(study.value(run)):
            reason = f"it diverged: {study.metric} is {study.value(run)}"
        elif reason is None and kept is not None and kept is not run:
            reason = f"{kept.path} has the same seed and ended later"
        runs.append(replace(run, left_out=reason))
    if all(run.left_out for run in runs):
        reasons = "; ".join(f"{run.path}: {run.left_out}" for run in runs[:3])
        raise ValueError(
            f"none of the {len(runs)} runs has finished ({reasons}); go on with them by "
            "`gpt4o-lit fit --resume RUN`"
        )
    return replace(study, runs=runs)


def _require_metric(run: Run, metric: str) -> None:
    if run.left_out or metric in run.metrics:
        return
    known = sorted(run.metrics)
    near = get_close_matches(metric, known, 1)
    judged = [name for name in known if not name.startswith("perf/")]
    mend = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(judged)}"
    raise ValueError(f"{run.path} has no metric '{metric}' in metrics.csv; {mend}")
