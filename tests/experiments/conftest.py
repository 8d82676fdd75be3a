"""Run directories as `fit` leaves them, of whatever came out."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

WriteRun = Callable[..., Path]
WriteAblation = Callable[..., Path]


def write_run(
    path: Path,
    losses: Sequence[float] = (3.0, 2.0),
    *,
    seed: int = 0,
    lr: float = 0.01,
    ended: bool = True,
    manifest: Mapping[str, Any] | None = None,
    **keys: Any,
) -> Path:
    """A run that validated every ten steps, and logged in between.

    Args:
        keys: More of the config's top keys.
    """
    path.mkdir(parents=True)
    config = {
        "seed_everything": seed,
        "name": "tiny",
        "trainer": {
            "default_root_dir": str(path),
            "logger": [{"class_path": "MetricsLog", "init_args": {"save_dir": str(path)}}],
        },
        "model": {"init_args": {"optimizer": {"init_args": {"lr": lr, "betas": [0.9, 0.95]}}}},
        "data": {"init_args": {"seed": seed}},
        "checkpoint": {"dirpath": f"{path}/checkpoints"},
    } | keys
    (path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    made: dict[str, Any] = {
        "commit": "c0ffee",
        "code": "aaaa",
        "versions": {"torch": "2.13.0"},
        "data": {"checksum": "text-1", "tokenizer": "bytes-1"},
        "hardware": {"cores": 2},
        "seed": seed,
    } | dict(manifest or {})
    if ended:
        end = {"ended": "2026-01-01T00:00:00+00:00", "steps": 10 * len(losses), "parameters": 1000}
        made = end | {"bytes_per_parameter": 4} | made
    (path / "manifest.json").write_text(json.dumps(made), encoding="utf-8")
    rows = [
        {"step": step - 1, "train/loss": 4 - step / 100, "perf/tokens": 64 * step,
         "perf/flops": 1e6 * step, "perf/seconds": step / 2, "perf/tokens_per_second": 128}
        for step in range(5, 10 * len(losses) + 1, 5)
    ]  # fmt: skip
    for row, loss in zip(rows[1::2], losses, strict=True):
        row |= {"val/loss": loss, "val/accuracy": 1 / (1 + loss)}
    with (path / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        names = dict.fromkeys(name for row in rows for name in row)
        writer = csv.DictWriter(file, list(names))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_ablation(folder: Path, values: Mapping[str, Mapping[int, float]], **told: Any) -> Path:
    """An ablation whose variants came to these losses, by seed."""
    runs = []
    for place, (variant, by_seed) in enumerate(values.items()):
        for seed, loss in by_seed.items():
            directory = f"{variant}/seed_{seed}"
            write_run(folder / directory, (loss + 1, loss), seed=seed, lr=0.01 * (place + 1))
            runs.append({"variant": variant, "seed": seed, "directory": directory,
                         "changes": [f"lr={0.01 * (place + 1)}"]})  # fmt: skip
    ablation = {"name": "rates", "metric": "val/loss", "mode": "min", "base": next(iter(values))}
    text = json.dumps(ablation | {"runs": runs} | told)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ablation.json").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def rates(tmp_path: Path) -> Path:
    """Three variants: the base, one that is better, and one of which nobody knows."""
    values = {
        "base": {0: 2.0, 1: 2.1, 2: 2.2},
        "better": {0: 1.5, 1: 1.61, 2: 1.69},
        "unclear": {0: 2.1, 1: 2.0, 2: 2.25},
    }
    return write_ablation(tmp_path / "rates", values)
