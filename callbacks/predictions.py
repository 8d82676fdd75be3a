"""predictions.csv: how likely each token or class was, as the network saw it."""

import csv
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from gpt4o_lit.strategies import data_place


class Predictions(BasePredictionWriter):
    """A row for each token that was asked: its window, id, piece and -log p in nats.

    Of a classification a row for each text, longest last: the class or classes that it is given,
    those that it has, and the probability of each class.

    Each further process of a launch that reads texts of its own writes a file of its own,
    predictions_NUMBER.csv.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="batch")
        self._window = 0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the header."""
        rank, places = data_place(trainer)
        self._writes = trainer.global_rank % (trainer.world_size // places) == 0
        self.path = Path(trainer.default_root_dir) / f"predictions{f'_{rank}' if rank else ''}.csv"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        header: tuple[str, ...] = ("window", "id", "piece", "nats")
        classes = self._classes(trainer)
        if classes:
            header = ("text", "prediction", "label", *(f"p({name})" for name in classes))
        self._write([header], "w")

    def write_on_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, prediction: Any, *_: Any
    ) -> None:
        """Add the tokens of a batch."""
        if "probabilities" in prediction:
            self._write(self._rows(prediction, self._classes(trainer)), "a")
            return
        tokenizer = trainer.datamodule.tokenizer  # type: ignore[attr-defined]
        rows = []
        for targets, nll in zip(prediction["targets"], prediction["nll"], strict=True):
            asked = targets != -100
            for id, nats in zip(targets[asked].tolist(), nll[asked].tolist(), strict=True):
                rows.append((self._window, id, tokenizer.piece(id), f"{nats:.5f}"))
            self._window += 1
        self._write(rows, "a")

    def _classes(self, trainer: Trainer) -> list[str]:
        return getattr(trainer.datamodule, "classes", [])  # type: ignore[attr-defined]

    def _rows(self, prediction: dict[str, Any], classes: list[str]) -> list[tuple[Any, ...]]:
        rows = []
        for row, target in zip(prediction["probabilities"], prediction["targets"], strict=True):
            several = target.ndim == 1
            given = (row >= 0.5).nonzero()[:, 0] if several else row.argmax()[None]
            asked = target.nonzero()[:, 0] if several else target[None]
            names = [" ".join(classes[n] for n in each.tolist()) for each in (given, asked)]
            rows.append((self._window, *names, *(f"{p:.5f}" for p in row.tolist())))
            self._window += 1
        return rows

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell where they are."""
        if self._writes:
            print(f"predictions: {self.path}")

    def _write(self, rows: list[tuple[Any, ...]], mode: str) -> None:
        if not self._writes:  # another process has the same
            return
        with self.path.open(mode, encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
