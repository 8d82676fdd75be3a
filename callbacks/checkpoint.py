"""Checkpoints of a run: the best, the last, and one when it is stopped."""

import shutil
import signal
import threading
from pathlib import Path
from typing import Any, Literal

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class Checkpoint(ModelCheckpoint):
    """best.ckpt after each validation that is the best so far, last.ckpt after every one.

    The last step of a run is validated and saved wherever it falls. A run that is stopped (an
    error, SIGTERM, Ctrl-C) saves last.ckpt; the first Ctrl-C lets the step end, so that the run
    can go on exactly, the second stops at once.

    Args:
        monitor: What is best.
        mode: Whether the lowest wins or the highest, such as of val/sacrebleu.
        every_n_train_steps: Save last.ckpt after each n-th step too. Default: by validations only.
        dirpath: Set by the run directory.
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        every_n_train_steps: int | None = None,
        dirpath: str | None = None,
    ) -> None:
        if every_n_train_steps is not None and every_n_train_steps < 1:
            raise ValueError(f"every_n_train_steps ({every_n_train_steps}) must be at least 1")
        super().__init__(
            dirpath=dirpath,
            filename="best",
            monitor=monitor,
            mode=mode,
            enable_version_counter=False,
        )
        self.every_n = every_n_train_steps
        self._saved_step = -1
        self._interrupted = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take Ctrl-C over from Python."""
        super().on_train_start(trainer, pl_module)
        self._saved_step, self._interrupted = trainer.global_step, False
        in_main = threading.current_thread() is threading.main_thread()
        if trainer.world_size == 1 and in_main:  # processes must not stop at different steps
            signal.signal(signal.SIGINT, self._interrupt)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Save by steps, stop when asked to, and have the last step validated."""
        step = trainer.global_step
        if self.every_n and step % self.every_n == 0 and step != self._saved_step:
            self._save_last(trainer)
        self._stop_if_asked()
        if step == trainer.max_steps:
            trainer.should_stop = True  # Lightning validates before it stops early

    def on_validation_batch_end(self, *args: Any) -> None:
        """Stop when asked to."""
        self._stop_if_asked()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, unless the end of the epoch is about to."""
        super().on_validation_end(trainer, pl_module)
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        if fitting and not self._should_save_on_train_epoch_end(trainer):
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where validation happens at the end of the epoch, or never."""
        super().on_train_epoch_end(trainer, pl_module)
        if self._should_save_on_train_epoch_end(trainer):
            self._save_last(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save steps that no validation followed, and give Ctrl-C back."""
        if trainer.global_step != self._saved_step:
            self._save_last(trainer)
        self._give_back_interrupt()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save what has been learned so far, and say how to go on."""
        if self._saved_step not in (-1, trainer.global_step):
            self._save_last(trainer)
        self._give_back_interrupt()
        if self._saved_step > 0 and trainer.is_global_zero:
            run = trainer.default_root_dir
            print(f"\nstopped at step {self._saved_step}; go on: gpt4o-lit fit --resume {run}")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was best; the run's directory may have been moved since."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(
            state_dict
            | {name: here(state_dict[name]) for name in paths}
            | {"dirpath": self.dirpath, "best_k_models": best}
        )

    def _interrupt(self, *_: Any) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        print("\nstopping after this step; Ctrl-C again stops at once", flush=True)

    def _give_back_interrupt(self) -> None:
        if signal.getsignal(signal.SIGINT) == self._interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _stop_if_asked(self) -> None:
        if self._interrupted:
            raise KeyboardInterrupt

    def _save_last(self, trainer: Trainer) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self.format_checkpoint_name({}, "last"), weights_only=False)
            self._saved_step = trainer.global_step
            self._save_config(trainer)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        self._save_config(trainer)

    def _save_config(self, trainer: Trainer) -> None:
        config = Path(trainer.default_root_dir) / "config.yaml"
        if trainer.is_global_zero and config.is_file():
            shutil.copy2(config, Path(str(self.dirpath)) / "config.yaml")
