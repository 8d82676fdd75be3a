"""What a run directory tells of a run: whether it goes on, how far it is, how good and how fast."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, Literal

import psutil
import yaml

from gpt4o_lit.experiments.run_files import LOADER
from gpt4o_lit.run_directory import (
    RunDirectory,
    kept_steps,
    read_manifest,
    read_metrics,
    write_manifest,
)

LOG = "run.log"
"""What a run printed, where somebody else than a terminal read it."""
SILENCE = 600.0
"""Seconds without a new file after which a run on another machine counts as killed."""
SPEED = "perf/tokens_per_second"

Status = Literal["waiting", "running", "finished", "stopped", "failed", "imported"]


@dataclass(frozen=True)
class Record:
    """A run as its files tell it at the time they are read."""

    path: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """manifest.json; empty before the first step."""
        try:
            return read_manifest(self.path)
        except json.JSONDecodeError as error:
            raise ValueError(f"{self.path / 'manifest.json'} is damaged ({error})") from error

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.yaml; empty before the run is set up."""
        path = RunDirectory(self.path).config
        found = yaml.load(path.read_text("utf-8"), LOADER) if path.is_file() else {}
        return found if isinstance(found, dict) else {}

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of metrics.csv."""
        return read_metrics(self.path / "metrics.csv")

    @property
    def status(self) -> Status:
        """Killed runs are stopped ones; a run without a manifest has not begun its first step."""
        manifest = self.manifest
        if "process" in manifest:
            return "running" if self._is_alive(manifest["process"]) else "stopped"
        if "error" in manifest:
            return "failed"
        if "stopped" in manifest:
            return "stopped"
        if "ended" in manifest:
            return "finished"
        if "imported_from" in manifest:
            return "imported"
        return "stopped" if RunDirectory(self.path).config.is_file() else "waiting"

    @property
    def step(self) -> int:
        """The last step that was logged or saved."""
        saved = next(iter(kept_steps(RunDirectory(self.path).checkpoints)), 0)
        logged = self.rows[-1]["step"] + 1 if self.rows else 0
        return max(saved, logged)

    @property
    def steps(self) -> int | None:
        """The steps that it shall have."""
        steps = (self.config.get("trainer") or {}).get("max_steps")
        return None if steps in (None, -1) else int(steps)

    @property
    def monitored(self) -> tuple[str, str]:
        """By what the run chooses its best checkpoint, and whether the lowest wins."""
        checkpoint = self.config.get("checkpoint") or {}
        return str(checkpoint.get("monitor", "val/loss")), str(checkpoint.get("mode", "min"))

    def best(self, metric: str, mode: str) -> tuple[float, int] | None:
        """The best value of a metric and its step, if it was ever logged."""
        found = [(row[metric], row["step"] + 1) for row in self.rows if metric in row]
        found = [pair for pair in found if pair[0] == pair[0]]
        if not found:
            return None
        return min(found) if mode == "min" else max(found, key=lambda pair: pair[0])

    @property
    def last(self) -> dict[str, float]:
        """The last value of each metric."""
        values = {name: value for row in self.rows for name, value in row.items()}
        return {name: value for name, value in values.items() if name not in ("step", "epoch")}

    @property
    def speed(self) -> float | None:
        """Tokens/s while training, the median of what was logged."""
        found = [row[SPEED] for row in self.rows if SPEED in row]
        return median(found) if found else None

    @property
    def age(self) -> float | None:
        """Seconds since it was started first."""
        started = self.manifest.get("started")
        return None if started is None else time.time() - _seconds(started)

    @property
    def seconds(self) -> float | None:
        """From the first start to the end; breaks between count too."""
        manifest = self.manifest
        if "started" not in manifest or "ended" not in manifest:
            return None
        return _seconds(manifest["ended"]) - _seconds(manifest["started"])

    @property
    def error(self) -> str | None:
        """Why it failed."""
        return self.manifest.get("error")

    def fail(self, words: str) -> None:
        """Note why a run ended that could not note it itself."""
        manifest = read_manifest(self.path)
        manifest.pop("process", None)
        manifest.setdefault("error", words)
        write_manifest(self.path, manifest)

    def forget_error(self) -> None:
        """The run is tried again."""
        manifest = read_manifest(self.path)
        if manifest.pop("error", None) is not None:
            write_manifest(self.path, manifest)

    def _is_alive(self, process: dict[str, Any]) -> bool:
        if process["host"] != os.uname().nodename:
            newest = max((file.stat().st_mtime for file in self.path.iterdir()), default=0.0)
            return time.time() - newest < SILENCE
        try:
            found = psutil.Process(process["id"])
            same = abs(found.create_time() - process["begun"]) < 1
            return same and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def records_below(folder: Path) -> Iterator[Record]:
    """Every run under a folder; what lies within a run is part of it."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; `gpt4o-lit fit` makes runs in runs/")
    for place, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if "config.yaml" in files or LOG in files:
            folders.clear()
            yield Record(Path(place))


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).astimezone(UTC).timestamp()
