"""How right the classes are that the network gives, by more than accuracy."""

from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor

from gpt4o_lit.evaluation.label_metrics import (
    calibration_counts,
    calibration_error,
    class_scores,
    confusion_counts,
    multi_label_counts,
    multi_label_scores,
)


class LabelQuality(Callback):
    """Logs scores of the whole validation and test split, by which the best may be chosen.

    One class a text: `val/macro_f1`, `val/matthews`, `val/calibration_error` (arXiv:1706.04599).
    Several: `val/micro_f1`, `val/macro_f1`, where a class is given from a probability of a half on.

    Args:
        enabled: False logs nothing.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self._sums: list[Tensor] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Start the sums anew."""
        self._sums = []

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Add the counts of a batch."""
        if not self.enabled:
            return
        if not isinstance(outputs, dict) or "probabilities" not in outputs:
            raise ValueError(
                f"LabelQuality scores classes, but {type(pl_module).__name__} gives none; use it "
                "with gpt4o_lit.tasks.Classification, or take it out"
            )
        probabilities, targets = outputs["probabilities"], outputs["targets"]
        if pl_module.multi_label:
            counts = [multi_label_counts(probabilities >= 0.5, targets)]
        else:
            guesses, classes = probabilities.argmax(1), probabilities.shape[1]
            counts = [
                confusion_counts(guesses, targets, classes),
                calibration_counts(probabilities, targets),
            ]
        counts = [count.double() for count in counts]
        self._sums = counts if not self._sums else list(map(torch.add, self._sums, counts))

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Log what the sums over all ranks say."""
        self._log(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """The same for the test split."""
        self._log(trainer, pl_module, "test")

    def _log(self, trainer: Any, task: Any, split: str) -> None:
        if not self.enabled or not self._sums:
            return
        sums = [trainer.strategy.reduce(each, reduce_op="sum") for each in self._sums]
        if task.multi_label:
            scores = multi_label_scores(sums[0])
        else:
            scores = class_scores(sums[0]) | {"calibration_error": calibration_error(sums[1])}
        for name, value in scores.items():
            if name not in ("accuracy", "subset_accuracy"):  # the task tells it
                task.log(f"{split}/{name}", value)
