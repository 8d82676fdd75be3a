"""A progress bar that tells how fast it goes and when it ends."""

from typing import Any

from lightning.pytorch.callbacks import TQDMProgressBar


class Progress(TQDMProgressBar):
    """TQDM's bar, refreshed seldom; one bar an epoch, in a run that goes on within one, too.

    Args:
        refresh_rate: Steps between refreshes; 0 turns the bar off.
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=True)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Lightning starts no epoch where a run goes on within one: start its bar there."""
        super().on_train_start(trainer, pl_module)
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        if done:
            self.on_train_epoch_start(trainer, pl_module)
            bar = self.train_progress_bar
            bar.initial = bar.n = done
            bar.total = min(trainer.num_training_batches, self.total_train_batches + done)

    def on_train_epoch_start(self, trainer: Any, *args: Any) -> None:
        """Wipe off the bar that was opened before the first epoch: this one stays."""
        self.train_progress_bar.leave = False
        self.train_progress_bar.close()
        super().on_train_epoch_start(trainer, *args)

    @property
    def total_train_batches(self) -> int | float:
        """Batches from here to the epoch's or the run's end, whichever is nearer."""
        trainer = self.trainer
        if trainer.max_steps < 0:
            return trainer.num_training_batches
        left = (trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches
        return min(trainer.num_training_batches, left)

    def get_metrics(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        """Drop the version number, which is none here; round what is shown."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics
