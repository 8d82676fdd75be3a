"""Pictures for whoever shows a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.image import imread


def show_pictures(trainer: Any, key: str, paths: Sequence[Path]) -> None:
    """Hand PNG files to each logger that takes images, at this step; the others do without.

    Each goes by `key/NAME`, for W&B shows pictures of one name in equal frames.
    """
    step = trainer.global_step
    for logger in trainer.loggers:
        for path in paths:
            name = f"{key}/{path.stem}"
            if isinstance(logger, TensorBoardLogger):
                pixels_HWC = imread(path)[..., :3]  # without alpha
                logger.experiment.add_image(name, pixels_HWC, step, dataformats="HWC")
            elif hasattr(logger, "log_image"):
                logger.log_image(name, [str(path)], step=step)
