"""Checkpoints of a run: the best, the last, and one when it is stopped."""

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint


class Checkpoint(ModelCheckpoint):
    """ModelCheckpoint with the defaults a run needs, and the resolved config beside the weights.

    Args:
        monitor: What is best; the lowest wins.
        save_top_k: How many of the best are kept beside the last.
        every_n_train_steps: Save by steps too. Default: after each validation.
        dirpath: Set by the run directory.
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        save_top_k: int = 1,
        every_n_train_steps: int | None = None,
        dirpath: str | None = None,
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="best",
            monitor=monitor if every_n_train_steps is None else None,
            save_top_k=save_top_k,
            save_last=True,
            every_n_train_steps=every_n_train_steps,
            save_on_exception=True,
            enable_version_counter=save_top_k > 1,
            auto_insert_metric_name=False,
        )

    def _save_checkpoint(self, trainer: Any, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        config = Path(trainer.default_root_dir) / "config.yaml"
        if trainer.is_global_zero and config.is_file():
            shutil.copy2(config, Path(filepath).parent / "config.yaml")
