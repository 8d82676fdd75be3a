"""manifest.json: what made a run, so that it can be made again."""

import hashlib
import json
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

PACKAGE = Path(gpt4o_lit.__file__).parent
PACKAGES = ("gpt4o-lit", "torch", "lightning", "jsonargparse", "sentencepiece", "numpy")


class Manifest(Callback):
    """Writes manifest.json and the tokenizer at the start, and adds to it at the end."""

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Write everything that is known before the first step."""
        if not trainer.is_global_zero:
            return
        run = Path(trainer.default_root_dir)
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        datamodule.tokenizer.save(run / "tokenizer")
        manifest = _read(run)
        manifest.setdefault("started", _now())
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
        }
        _write(run, manifest)

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Add when the run ended and with what; a run that had ended before keeps its figures."""
        if trainer.is_global_zero and trainer.callback_metrics:
            run = Path(trainer.default_root_dir)
            metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
            end = {"ended": _now(), "steps": trainer.global_step, "metrics": metrics}
            size = {
                "parameters": count_parameters(pl_module.transformer.config)["total"],
                "bytes_per_parameter": next(pl_module.transformer.parameters()).element_size(),
            }
            add(run, end | size)


def add(run: Path, found: dict[str, Any]) -> None:
    """Add to the manifest of a run; what is there already by these names gives way."""
    _write(run, _read(run) | found)


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


def _read(run: Path) -> dict[str, Any]:
    path = run / "manifest.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _write(run: Path, manifest: dict[str, Any]) -> None:
    run.mkdir(parents=True, exist_ok=True)
    part = run / "manifest.json.part"
    part.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    os.replace(part, run / "manifest.json")
