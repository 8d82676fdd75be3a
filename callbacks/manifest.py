"""manifest.json: what made a run, so that it can be made again."""

import hashlib
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch
from lightning import Callback, Trainer

import gpt4o_lit
from gpt4o_lit.model import count_parameters
from gpt4o_lit.run_directory import read_manifest, read_metrics, write_manifest

PACKAGE = Path(gpt4o_lit.__file__).parent
PACKAGES = ("gpt4o-lit", "torch", "lightning", "jsonargparse", "sentencepiece", "numpy")


class Manifest(Callback):
    """Writes manifest.json and the tokenizer at the start, and adds to it at the end.

    While the run goes on there is `process`; behind it `ended`, or `stopped` and, where the run was
    not told to, `error`. A run that is killed keeps its `process`.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Write everything that is known before the first step."""
        if not trainer.is_global_zero:
            return
        run = Path(trainer.default_root_dir)
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        datamodule.tokenizer.save(run / "tokenizer")
        manifest = read_manifest(run)
        manifest.setdefault("started", _now())
        for mark in ("stopped", "error"):
            manifest.pop(mark, None)
        manifest |= {
            "command": " ".join(["gpt4o-lit", *sys.argv[1:]]),
            "commit": commit(),
            "code": code_fingerprint(),
            "versions": {name: _version(name) for name in PACKAGES}
            | {"python": platform.python_version()},
            "data": {
                "directory": str(datamodule.directory),
                "checksum": datamodule.checksum,
                "tokenizer": datamodule.tokenizer.fingerprint,
            },
            "seed": int(os.environ.get("PL_GLOBAL_SEED", 0)),
            "hardware": hardware(trainer),
            "process": this_process(),
        }
        write_manifest(run, manifest)

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Add when the run ended and with what; a run that had ended before keeps its figures."""
        if not trainer.is_global_zero:
            return
        run = Path(trainer.default_root_dir)
        manifest = read_manifest(run)
        manifest.pop("process", None)
        if not had_ended(trainer):
            metrics = metrics_of(trainer)
            manifest |= {
                "ended": _now(),
                "steps": trainer.global_step,
                "metrics": metrics,
                "parameters": count_parameters(pl_module.transformer.config)["total"],
                "bytes_per_parameter": next(pl_module.transformer.parameters()).element_size(),
            }
        write_manifest(run, manifest)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Add when the run stopped, and why if nobody told it to."""
        run = Path(trainer.default_root_dir)
        manifest = read_manifest(run)
        if not trainer.is_global_zero or manifest.pop("process", None) is None:
            return
        manifest["stopped"] = _now()
        if not isinstance(exception, KeyboardInterrupt | SystemExit):
            manifest["error"] = one_line(exception)
        write_manifest(run, manifest)


def had_ended(trainer: Trainer) -> bool:
    """Whether this fit found nothing to train, and the run had been told to its end before."""
    told = read_manifest(Path(trainer.default_root_dir)).get("steps")
    return not trainer.callback_metrics and told == trainer.global_step


def metrics_of(trainer: Trainer) -> dict[str, float]:
    """The last value of each metric; of a run killed behind its last step, as they were logged."""
    if trainer.callback_metrics:
        return {name: float(value) for name, value in trainer.callback_metrics.items()}
    rows = read_metrics(Path(trainer.default_root_dir) / "metrics.csv")
    last = {name: value for row in rows for name, value in row.items()}
    return {name: value for name, value in last.items() if name not in ("step", "epoch")}


def one_line(exception: BaseException) -> str:
    """What happened, without its traceback."""
    first = (str(exception).strip().splitlines() or [""])[0]
    return f"{type(exception).__name__}: {first}" if first else type(exception).__name__


def this_process() -> dict[str, Any]:
    """What tells this process from all others, on this machine and elsewhere."""
    process = psutil.Process()
    return {"host": platform.node(), "id": process.pid, "begun": process.create_time()}


def add(run: Path, found: dict[str, Any]) -> None:
    """Add to the manifest of a run; what is there already by these names gives way."""
    write_manifest(run, read_manifest(run) | found)


def code_fingerprint() -> str:
    """Of the sources of this package as they are installed: equal ones are the same code."""
    paths = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    here = Path(__file__).parent  # elsewhere than in the package where that can be edited
    paths |= {f"callbacks/{path.name}": path for path in here.glob("*.py")}
    digest = hashlib.sha256()
    for name, path in sorted(paths.items()):
        digest.update(f"{name}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def commit() -> str | None:
    """The commit of the checkout one stands in, with `+` for changes; None outside a checkout."""
    try:
        head = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+"],
            capture_output=True, text=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() or None


def hardware(trainer: Trainer) -> dict[str, Any]:
    """Processor, memory and devices of this machine."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "processor": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": gpus,
        "processes": trainer.world_size,
        "precision": str(trainer.precision),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
