"""A progress bar that tells how fast it goes and when it ends."""

from typing import Any

from lightning.pytorch.callbacks import TQDMProgressBar


class Progress(TQDMProgressBar):
    """TQDM's bar, refreshed seldom.

    Args:
        refresh_rate: Steps between refreshes; 0 turns the bar off.
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=True)

    def get_metrics(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        """Drop the version number, which is none here; round what is shown."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics
