"""Pictures of a run from its metrics.csv."""

import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from lightning import Callback, LightningModule, Trainer
from matplotlib import pyplot as plt

from gpt4o_lit.run_directory import read_metrics

FIGURES = {
    "loss": (("train/loss", "val/loss"), "nats per target"),
    "scores_of_texts": (
        (
            "val/sacrebleu",
            "val/chrf",
            "val/rouge1",
            "val/rouge2",
            "val/rougeL",
            "val/exact_match",
            "val/token_f1",
            "val/code_match",
        ),
        "score, 0 to 100",
    ),
    "scores_of_classes": (
        ("val/macro_f1", "val/micro_f1", "val/entity_f1", "val/matthews"),
        "score, 0 to 1",
    ),
    "learning_rate": (("train/lr",), "learning rate"),
    "tokens_per_second": (("perf/tokens_per_second",), "tokens per second"),
}


PAUSE = 60.0
"""Seconds from one drawing to the next; short runs validate more often than anybody looks."""


class Plots(Callback):
    """Draws loss, scores, learning rate and tokens/s: after a validation, and at the end."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing is there to draw yet."""
        self._drawn = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw what there is so far."""
        if not trainer.sanity_checking and time.monotonic() - self._drawn >= PAUSE:
            self._draw(trainer)
            self._drawn = time.monotonic()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the whole run."""
        self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.save()
            draw(Path(trainer.default_root_dir) / "metrics.csv")


def draw(metrics_csv: Path) -> list[Path]:
    """Draw each figure whose metrics the file has, into `plots/` beside it; returns their paths."""
    rows: list[dict[str, Any]] = read_metrics(metrics_csv)
    drawn = []
    for name, (metrics, label) in FIGURES.items():
        curves = {m: [(r["step"], r[m]) for r in rows if m in r] for m in metrics}
        curves = {metric: points for metric, points in curves.items() if points}
        if not curves:
            continue
        figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
        for metric, points in curves.items():
            marker = "o" if metric.startswith("val/") else None
            axes.plot(*zip(*points, strict=True), marker=marker, markersize=4, label=metric)
        axes.set(xlabel="optimizer step", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend()
        path = metrics_csv.parent / "plots" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, dpi=120)
        plt.close(figure)
        drawn.append(path)
    return drawn
