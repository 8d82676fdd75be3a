"""What runs left: a study of variants and seeds, read from an ablation or from plain runs."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from gpt4o_lit.experiments.run_files import (
    ABLATION,
    Run,
    experiment_of,
    planned_run,
    read_plan,
    read_run,
    run_folders,
)

METRIC = "val/loss"
UNREADABLE = "(unreadable)"
"""The variant of runs whose config cannot be read."""
LESS_IS_BETTER = ("loss", "perplexity", "bits_per_byte", "ter", "calibration_error")
MORE_IS_BETTER = ("accuracy", "f1", "sacrebleu", "chrf", "rouge1", "rouge2", "rougeL",
                  "exact_match", "code_match", "matthews")  # fmt: skip
Mode = Literal["min", "max"]
At = Literal["last", "best"]


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
    folders = [folder for given in directories for folder in run_folders(given)]
    ablations = [folder for folder in folders if (folder / ABLATION).is_file()]
    if ablations and len(folders) > 1:
        raise ValueError(
            f"{ablations[0]} is an ablation (it has {ABLATION}) and a report is about one ablation "
            "or about plain runs; give it alone, or give the directories of runs"
        )
    told = read_plan(ablations[0]) if ablations else {}
    if ablations:
        runs = [planned_run(ablations[0], entry) for entry in told["runs"]]
    else:
        runs = _name_variants([read_run(folder) for folder in dict.fromkeys(folders)])
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
