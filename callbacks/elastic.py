"""A run that goes on with more or fewer processes than it began with."""

from fractions import Fraction
from typing import Any

from lightning import Callback, LightningModule, Trainer

COUNTS = ("ready", "started", "processed", "completed")


class Elastic(Callback):
    """Has more or fewer processes than a run began with work through the same batches.

    Where a node is lost, those that are left take turns at the batches of all, and accumulate the
    more gradients before a step (`accumulated`); the loaders ask this callback. Here the count of
    batches that Lightning keeps is told in those of as many processes as there are now.

    Args:
        began_with: Processes that the run began with. Default: as many as now.
    """

    def __init__(self, began_with: int | None = None) -> None:
        self.began_with, self._processes = began_with, 1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See how many there are."""
        self._processes = trainer.world_size

    def state_dict(self) -> dict[str, Any]:
        """In what a checkpoint counts batches."""
        return {"began_with": self.began_with or self._processes, "processes": self._processes}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Count batches anew; an older checkpoint has those of one that did not change."""
        saved = checkpoint["callbacks"].get(self.state_key) or {"began_with": 1, "processes": 1}
        now = self.state_dict()
        ratio = Fraction(now["began_with"], now["processes"])
        ratio /= Fraction(saved["began_with"], saved["processes"])
        if ratio == 1:
            return
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for span in ("total", "current"):
            for count in COUNTS:
                progress[span][count] = int(progress[span][count] * ratio)


def accumulated(settings: dict[str, Any], began_with: int, processes: int) -> dict[str, Any]:
    """A Trainer's settings by which each step of so many processes reads what it did at first.

    Raises:
        ValueError: they cannot have equally many batches of it.
    """
    share = Fraction(began_with, processes)
    window = settings["accumulate_grad_batches"]
    if (window * share).denominator != 1:
        raise ValueError(
            f"{processes} processes cannot have equal parts of a step that was of {began_with} "
            f"processes x accumulate_grad_batches ({window}); start with a number that each count "
            "of processes divides, or go on with as many as before"
        )
    counts = ("accumulate_grad_batches", "val_check_interval", "limit_train_batches")
    return {name: int(settings[name] * share) for name in counts if isinstance(settings[name], int)}
