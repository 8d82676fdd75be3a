"""The resolved config, written once into the run's directory."""

from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from gpt4o_lit.run_directory import RunDirectory


class SaveConfig(SaveConfigCallback):
    """Writes config.yaml where the run lives, whatever the logger, and hands it to W&B whole."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False})  # type: ignore[arg-type]

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save unless the run goes on and has its config already; runs on rank 0 alone."""
        run = RunDirectory(Path(trainer.default_root_dir))
        run.path.mkdir(parents=True, exist_ok=True)
        if not run.config.exists():
            self.parser.save(self.config, str(run.config), skip_none=False)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update(self.config.as_dict(), allow_val_change=True)
