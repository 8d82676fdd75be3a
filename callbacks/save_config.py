"""The resolved config, written once into the run's directory."""

import os
import shutil
from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from gpt4o_lit.callbacks.mlflow_run import MlflowRun
from gpt4o_lit.run_directory import RunDirectory


class SaveConfig(SaveConfigCallback):
    """Writes config.yaml where the run lives, whatever the logger; W&B and MLflow get it too."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False})  # type: ignore[arg-type]

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save, and keep what a run that goes on with other settings had before.

        `run_dir` and `ckpt_path` are left out: they belong to the command, and the file shall be
        good for a run of its own.

        Raises:
            FileExistsError: another run has taken the directory since this one chose it.
        """
        run = RunDirectory(Path(trainer.default_root_dir))
        run.path.mkdir(parents=True, exist_ok=True)
        goes_on = self.config.get("ckpt_path") is not None
        config = self.config.clone()
        config.run_dir = config.ckpt_path = None
        text = self.parser.dump(config, skip_none=False)
        if run.config.exists():
            if not goes_on:
                raise FileExistsError(f"another run has taken {run.path}; choose another run_dir")
            before = run.config.read_text(encoding="utf-8")
            if before != text:
                earlier = len(list(run.path.glob("config_before_*.yaml"))) + 1
                shutil.copy2(run.config, run.path / f"config_before_{earlier}.yaml")
        part = run.path / "config.yaml.part"
        part.write_text(text, encoding="utf-8")
        os.replace(part, run.config)  # a run that is killed here has one of the two
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update(self.config.as_dict(), allow_val_change=True)
            elif isinstance(logger, MlflowRun):
                logger.log_hyperparams(self.config.as_dict())
