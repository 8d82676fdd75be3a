"""How right the classes are that the network gives, by more than accuracy."""

from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor

from gpt4o_lit.evaluation.label_metrics import (
    are_entities,
    calibration_counts,
    calibration_error,
    class_scores,
    confusion_counts,
    entity_counts,
    entity_scores,
    multi_label_counts,
    multi_label_scores,
)


class LabelQuality(Callback):
    """Logs scores of the whole validation and test split, by which the best may be chosen.

    One class a text: `val/macro_f1`, `val/matthews`, `val/calibration_error` (arXiv:1706.04599).
    Several: `val/micro_f1`, `val/macro_f1`, where a class is given from a probability of a half on.
    A tag a word: `val/macro_f1`, and where the tags are of entities (B-, I-, O) `val/entity_f1`.

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
        counts = [count.double() for count in self._counts(pl_module, outputs)]
        self._sums = counts if not self._sums else list(map(torch.add, self._sums, counts))

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Log what the sums over all ranks say."""
        self._log(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """The same for the test split."""
        self._log(trainer, pl_module, "test")

    def _counts(self, task: Any, outputs: Any) -> list[Tensor]:
        """What adds up over batches and processes."""
        if isinstance(outputs, dict) and "tags" in outputs:
            return _tag_counts(outputs["tags"], outputs["targets"], task.datamodule.classes)
        if not isinstance(outputs, dict) or "probabilities" not in outputs:
            raise ValueError(
                f"LabelQuality scores classes, but {type(task).__name__} gives none; use it with "
                "gpt4o_lit.tasks.Classification or TokenClassification, or take it out"
            )
        probabilities, targets = outputs["probabilities"], outputs["targets"]
        if task.multi_label:
            return [multi_label_counts(probabilities >= 0.5, targets)]
        guesses, classes = probabilities.argmax(1), probabilities.shape[1]
        return [
            confusion_counts(guesses, targets, classes),
            calibration_counts(probabilities, targets),
        ]

    def _log(self, trainer: Any, task: Any, split: str) -> None:
        if not self.enabled or not self._sums:
            return
        sums = [trainer.strategy.reduce(each, reduce_op="sum") for each in self._sums]
        if getattr(task, "multi_label", False):
            scores = multi_label_scores(sums[0])
        elif not getattr(task, "pool", None):
            scores = class_scores(sums[0])
            scores |= entity_scores(sums[1]) if are_entities(task.datamodule.classes) else {}
        else:
            scores = class_scores(sums[0]) | {"calibration_error": calibration_error(sums[1])}
        for name, value in scores.items():
            if name not in ("accuracy", "subset_accuracy"):  # the task tells it
                task.log(f"{split}/{name}", value)


def _tag_counts(tags_BT: Tensor, targets_BT: Tensor, classes: list[str]) -> list[Tensor]:
    """Of the words of each sentence: tags by target and guess, and entities."""
    asked_BT = targets_BT >= 0
    confusion = confusion_counts(tags_BT[asked_BT], targets_BT[asked_BT], len(classes))
    found = torch.zeros(3, dtype=torch.int64)
    for tags, targets, asked in zip(tags_BT, targets_BT, asked_BT, strict=True):
        guess, target = ([classes[n] for n in each[asked].tolist()] for each in (tags, targets))
        found += entity_counts(guess, target)
    return [confusion, found.to(confusion.device)]
