"""Looks before the first run whether the metric that variants are compared by is ever logged."""

import json
import shutil
import tempfile
import time
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from gpt4o_lit.experiments.ablation import Ablation
from gpt4o_lit.experiments.changes import class_name
from gpt4o_lit.experiments.launch import Machine
from gpt4o_lit.experiments.record import LOG
from gpt4o_lit.experiments.resolve import Variant
from gpt4o_lit.run_directory import read_metrics

# By an epoch of one batch, for schedules reckon with the steps of the whole run.
ONE_STEP: dict[str, Any] = {
    "max_epochs": 1,
    "limit_train_batches": 1,
    "val_check_interval": 1.0,
    "check_val_every_n_epoch": 1,
    "limit_val_batches": 1,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
}
DUE_AT_ONCE = ("every_n_steps", "every_n_train_steps")


def require_metric(ablation: Ablation, machine: Machine) -> None:
    """Train one step of each kind of variant, unless a run of it has logged the metric already.

    Variants are of one kind whose task, data, objective and callbacks are of the same classes.

    Raises:
        ValueError: a variant does not log the metric, or the base does not train.
    """
    metric = ablation.grid.metric
    logged = {
        run.variant
        for run in ablation.runs
        if any(metric in row for row in read_metrics(run.path / "metrics.csv"))
    }
    kinds: dict[str, list[Variant]] = {}
    for variant in ablation.variants:
        kinds.setdefault(_kind(variant.config), []).append(variant)
    for number, variants in enumerate(kinds.values()):
        if logged.isdisjoint(variant.name for variant in variants):
            _require_metric(ablation, variants[0], machine, is_first=number == 0)


def _require_metric(ablation: Ablation, variant: Variant, machine: Machine, is_first: bool) -> None:
    grid = ablation.grid
    with tempfile.TemporaryDirectory(prefix=".probe_", dir=ablation.directory) as folder:
        run, config = Path(folder) / "run", Path(folder) / "one_step.yaml"
        config.write_text(yaml.safe_dump(one_step(variant.config)), encoding="utf-8")
        job = machine.start(["fit", "--config", str(config), "--run_dir", str(run)], run)
        while job.poll() is None:
            time.sleep(0.02)
        rows = read_metrics(run / "metrics.csv")
        log = (run / LOG).read_text("utf-8", "replace").strip().splitlines()
    names = sorted({name for row in rows for name in row} - {"step", "epoch"})
    if not names:
        if is_first:  # a variant that fails is reported when it does
            why = log[-1] if log else "it printed nothing"
            raise ValueError(f"{grid.name}: {variant.name} does not train one step: {why}")
        return
    if grid.metric not in names:
        near = get_close_matches(grid.metric, names, 1)
        mend = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(names)}"
        raise ValueError(
            f"{grid.name}: variant {variant.name} logs no metric '{grid.metric}'; {mend}"
        )


def one_step(config: dict[str, Any]) -> dict[str, Any]:
    """The same experiment, for one step and one batch of validation, without anything written."""
    short: dict[str, Any] = json.loads(json.dumps(config))
    loggers = [each for each in short["trainer"]["logger"] if class_name(each) == "MetricsLog"]
    short["trainer"] |= ONE_STEP | {"logger": loggers}  # W&B shall not be told of it
    short["samples"]["enabled"] = False
    for callback in short["trainer"]["callbacks"] or []:
        arguments = callback.get("init_args") or {}
        arguments |= {name: 1 for name in DUE_AT_ONCE if arguments.get(name)}
    return short


def clear(directory: Path) -> None:
    """Take away what probes left that were killed."""
    for left in directory.glob(".probe_*"):
        shutil.rmtree(left, ignore_errors=True)


def _kind(config: dict[str, Any]) -> str:
    arguments = config["model"].get("init_args") or {}
    objective = arguments.get("objective") or {}
    callbacks = [
        (class_name(each), (each.get("init_args") or {}).get("metrics"))
        for each in config["trainer"]["callbacks"] or []
    ]
    parts = (config["model"]["class_path"], config["data"]["class_path"], callbacks)
    return json.dumps(
        [*parts, objective.get("class_path") if isinstance(objective, dict) else None]
    )
