"""A run's own directory: where it lies, what is in it, and that none is ever written over."""

import csv
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

NETWORK = "network.json"  # what a compressed network is, in place of checkpoints
PACKED = "compressed"  # the folder of what a run left packed
WANDB_ID = "wandb_id"  # the file that says what W&B calls a run


@dataclass(frozen=True)
class RunDirectory:
    """The files of a run under `path`."""

    path: Path

    @classmethod
    def fresh(cls, name: str, given: str | None = None) -> "RunDirectory":
        """Make a directory that no run has used: `given`, or runs/NAME/TIME.

        Raises:
            FileExistsError: `given` holds something already.
        """
        if given is not None:
            path = Path(given)
            if path.is_file() or (path.is_dir() and any(path.iterdir())):
                raise FileExistsError(
                    f"run_dir ({given}) is not empty and a run is never overwritten; "
                    f"choose another, or go on with it by --resume {given}"
                )
            path.mkdir(parents=True, exist_ok=True)
            return cls(path)
        return cls(_make_dated(Path("runs") / name))

    def below(self, verb: str) -> "RunDirectory":
        """Make a directory in this one for what `verb` finds out about the run."""
        return RunDirectory(_make_dated(self.path / verb))

    @classmethod
    def existing(cls, given: str) -> "RunDirectory":
        """The directory of a run that has started.

        Raises:
            FileNotFoundError: there is no config.yaml in it; the message names runs that exist.
        """
        run = cls(Path(given))
        if not run.config.is_file():
            runs = sorted(str(path.parent) for path in Path("runs").glob("*/*/config.yaml"))
            mend = f"the newest run here is {runs[-1]}" if runs else "`gpt4o-lit fit` starts one"
            raise FileNotFoundError(f"{given} is no run directory: it has no config.yaml; {mend}")
        return run

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """The checkpoint to go on from.

        Raises:
            FileNotFoundError: the run was stopped before its first checkpoint.
        """
        path = self.checkpoints / "last.ckpt"
        if (self.path / NETWORK).is_file():
            raise FileNotFoundError(
                f"{self.path} is compressed already and has no checkpoint; give the run that it "
                "was made of"
            )
        if not path.exists():
            raise FileNotFoundError(
                f"{self.path} has no checkpoint yet (checkpoints/last.ckpt); start it anew with "
                f"`gpt4o-lit fit --config {self.config}`"
            )
        return path

    @property
    def best_checkpoint(self) -> Path:
        """The checkpoint with the lowest validation loss; of a run never validated, the last.

        Raises:
            FileNotFoundError: the run was stopped before its first checkpoint.
        """
        path = self.checkpoints / "best.ckpt"
        return path if path.exists() else self.last_checkpoint


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.csv as numbers; a metric that a row lacks is left out of it."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        names = next(lines, [])
        rows = [{k: float(v) for k, v in zip(names, line, strict=True) if v} for line in lines]
    return [{**row, "step": int(row["step"])} for row in rows if "step" in row]


def read_manifest(run: Path) -> dict[str, Any]:
    """What manifest.json of a run says so far."""
    path = run / "manifest.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_manifest(run: Path, manifest: dict[str, Any]) -> None:
    """Write the whole file beside the old one, then put it in its place."""
    run.mkdir(parents=True, exist_ok=True)
    part = run / "manifest.json.part"
    part.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    os.replace(part, run / "manifest.json")


def kept_steps(folder: Path) -> dict[int, Path]:
    """The checkpoints by step that are kept, the newest first."""
    found = {file.stem.removeprefix("step_"): file for file in folder.glob("step_*.ckpt")}
    return {int(step): found[step] for step in sorted(filter(str.isdigit, found), key=int)[::-1]}


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What a run leaves to be used; None where it did not say."""

    bytes: float | None
    """Of the weights; of those in RUN/compressed where there is such a directory."""
    writing_speed: float | None
    """Tokens written per second at batch 1, as the model card or the ledger measured it."""


def deployment_of(path: Path, manifest: Mapping[str, Any]) -> Deployment:
    """What the files of a run say.

    Args:
        path: The run's directory.
        manifest: Its manifest.json.
    """
    if (path / PACKED).is_dir():
        told = _ledger_entry(path)
        if told is not None:
            return Deployment(bytes=told["bytes_on_disk"], writing_speed=told["decode"].get("1"))
        weights = path / PACKED / "model.safetensors"
        size = weights.stat().st_size if weights.is_file() else None
        return Deployment(bytes=size, writing_speed=None)
    measured = manifest.get("deployment", {})
    counted = manifest.get("parameters")
    size = None if counted is None else counted * manifest["bytes_per_parameter"]
    return Deployment(
        bytes=measured.get("weight_bytes", size),
        writing_speed=measured.get("decode_tokens_per_second"),
    )


def _ledger_entry(path: Path) -> dict[str, Any] | None:
    """What EfficiencyReport measured of RUN/compressed."""
    file = path / "efficiency" / "ledger.json"
    if not file.is_file():
        return None
    entries = json.loads(file.read_text(encoding="utf-8"))["entries"]
    return next((entry for entry in entries if entry["run"].endswith(f"/{PACKED}")), None)


def _make_dated(folder: Path) -> Path:
    """A new directory named after the time; two runs of one second get one each."""
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for name in (now, *(f"{now}_{count}" for count in range(2, 1000))):
        try:
            (folder / name).mkdir(parents=True)
        except FileExistsError:
            continue
        return folder / name
    raise FileExistsError(f"{folder} has a thousand runs of this second; choose a run_dir")
