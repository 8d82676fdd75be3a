"""Checkpoints of a run: the best, the last ones, and one when it is stopped."""

import signal
import threading
from collections.abc import Collection
from copy import copy
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal
from weakref import proxy

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from gpt4o_lit.callbacks.checkpoint_files import CheckpointFiles, Keeping
from gpt4o_lit.callbacks.metrics_log import MetricsLog
from gpt4o_lit.interop.checkpoints import step_file

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Checkpoint(ModelCheckpoint):
    """step_N.ckpt after each validation; best.ckpt and last.ckpt are names of two of them.

    The last step of a run is validated and saved wherever it falls. A run that is told to stop
    (SIGTERM, Ctrl-C) ends its step, saves and stops, on all processes at once, so that it can go on
    exactly; behind the last step it validates first. A second Ctrl-C stops at once. A run that
    fails saves what it has learned.

    A checkpoint that cannot be written, such as for want of room, costs none of those before.

    Args:
        monitor: What is best.
        mode: Whether the lowest wins or the highest, such as of val/sacrebleu.
        every_n_train_steps: Save after each n-th step too. Default: by validations only.
        keep_last: Newest checkpoints that are kept, to go back to (`--resume_from previous`).
        keep_best: Best checkpoints that are kept.
        asynchronous: Copy the state to memory and write it while training goes on.
        on_save_error: Warn, train on and try again at the next save, or raise. A run whose last
            step could not be saved ends with an error in either case.
        dirpath: Set by the run directory.
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        every_n_train_steps: int | None = None,
        keep_last: int = 2,
        keep_best: int = 1,
        asynchronous: bool = False,
        on_save_error: Literal["warn", "raise"] = "warn",
        dirpath: str | None = None,
    ) -> None:
        counts = {"keep_last": keep_last, "keep_best": keep_best}
        for name, value in {"every_n_train_steps": every_n_train_steps, **counts}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} ({value}) must be at least 1")
        super().__init__(
            dirpath=dirpath,
            filename="step_{step}",
            auto_insert_metric_name=False,
            monitor=monitor,
            mode=mode,
            save_top_k=keep_best,
            enable_version_counter=False,
        )
        self.every_n, self.keep_last = every_n_train_steps, keep_last
        self.asynchronous, self.on_save_error = asynchronous, on_save_error
        self._saved_step = self._first_step = -1
        self._under_way: tuple[int, dict[str, Any]] | None = None
        self._asked: signal.Signals | None = None
        self._validation_is_due = self._judgement_is_due = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have the files written as they should be."""
        super().setup(trainer, pl_module, stage)
        files = trainer.strategy.checkpoint_io
        if not isinstance(files, CheckpointFiles):
            raise ValueError(
                f"Checkpoint writes by {type(files).__name__}, and must by CheckpointFiles; give "
                "the Trainer plugins=[gpt4o_lit.callbacks.CheckpointFiles()]"
            )
        self._files = files
        files.asynchronous = self.asynchronous

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take signals over, and be asked behind each step: Lightning has no hook there.

        At `on_train_batch_end` the metrics of the step are not logged yet, nor is it validated.
        """
        super().on_train_start(trainer, pl_module)
        self._saved_step = self._first_step = trainer.global_step
        self._wants_room = self.asynchronous
        self._asked = None
        for logger in trainer.loggers:
            if isinstance(logger, MetricsLog):
                logger.go_on_from(trainer.global_step)
        loop: Any = trainer.fit_loop.epoch_loop
        advanced = loop.on_advance_end

        def on_advance_end(fetcher: Any) -> None:
            advanced(fetcher)
            if _is_between_steps(trainer):
                self._save_and_stop_if_due(trainer)

        loop.on_advance_end = on_advance_end
        _end_ended_epoch(trainer)
        if self._validation_is_due:
            loop.val_loop._restart_stage = "restarted_mid_evaluation"
            self._validation_is_due = False
        if threading.current_thread() is threading.main_thread():
            for sign in SIGNALS:
                signal.signal(sign, self._ask)

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        """Have the first step logged as what it is.

        Lightning counts one too few where the run goes on from a step that it validated alone
        because it was the last.
        """
        if trainer.global_step == self._first_step:
            trainer.fit_loop.epoch_loop._batches_that_stepped = self._first_step

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Have the last step validated; behind the first, what a save will copy is known."""
        if self._wants_room and trainer.global_step > self._first_step:
            self._wants_room = False
            states = [list(optimizer.state.values()) for optimizer in trainer.optimizers]
            self._files.make_room([trainer.lightning_module.state_dict(), states])
        if trainer.global_step == trainer.max_steps:
            trainer.should_stop = True  # Lightning validates before it stops early

    def on_validation_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Stop when asked to; the run that goes on validates from the beginning.

        Behind the last step it would not: Lightning has nothing to go on with there.
        """
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        if trainer.global_step == trainer.max_steps:
            return
        if fitting and _is_between_steps(trainer) and self._is_asked(trainer):
            progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
            for name in ("ready", "started", "processed", "completed"):
                done = getattr(progress.total, name) - getattr(progress.current, name)
                setattr(progress.total, name, done)
            progress.reset_on_run()
            self._validation_is_due = True
            self._stop()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, unless the end of the epoch is about to."""
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        if not fitting or self._should_save_on_train_epoch_end(trainer):
            return
        self._judgement_is_due = True
        if _is_between_steps(trainer):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where validation happens at the end of the epoch, or never; or as behind a step."""
        self._judgement_is_due |= self._should_save_on_train_epoch_end(trainer)
        self._save_and_stop_if_due(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save steps that no validation followed, and see that the last one is safe.

        Raises:
            OSError: it could not be saved.
        """
        self._land(trainer)
        if trainer.global_step != self._saved_step:
            self._save(trainer, "raise")
            self._land(trainer, "raise")
        self._give_back_signals()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save what has been learned so far, and say how to go on."""
        if self._saved_step == -1:
            return
        self._land(trainer, "warn")
        if self._saved_step != trainer.global_step or self._validation_is_due:
            self._save(trainer, "warn")
            self._land(trainer, "warn")
        self._give_back_signals()
        if self._saved_step > 0 and trainer.is_global_zero:
            run = trainer.default_root_dir
            print(f"\nstopped at step {self._saved_step}; go on: gpt4o-lit fit --resume {run}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give Lightning's loop its own end of a step back."""
        trainer.fit_loop.epoch_loop.__dict__.pop("on_advance_end", None)

    def state_dict(self) -> dict[str, Any]:
        """What is best, and whether a validation was broken off."""
        return super().state_dict() | {"validation_is_due": self._validation_is_due}

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
        self.current_score = state_dict["current_score"]
        self._validation_is_due = state_dict.get("validation_is_due", False)

    def _ask(self, number: int, frame: Any) -> None:
        if self._asked == number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = signal.Signals(number)
        again = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
        print(f"\n{self._asked.name}: stopping after this step{again}", flush=True)

    @property
    def told_to_stop(self) -> bool:
        """Whether a signal has told this process to."""
        return self._asked is not None

    def _is_asked(self, trainer: Trainer) -> bool:
        """Whether any process was told to stop: all must at the same step."""
        return trainer.strategy.reduce_boolean_decision(self._asked is not None, all=False)

    def _stop(self) -> None:
        raise KeyboardInterrupt if self._asked == signal.SIGINT else SIGTERMException

    def _give_back_signals(self) -> None:
        if signal.getsignal(signal.SIGINT) == self._ask:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _save_and_stop_if_due(self, trainer: Trainer) -> None:
        step = trainer.global_step
        is_turn = self.every_n and step % self.every_n == 0 and step != self._saved_step
        if is_turn or self._judgement_is_due:
            self._save(trainer)
        if self._is_asked(trainer):
            self._stop()

    def _save(self, trainer: Trainer, on_error: Literal["warn", "raise"] | None = None) -> None:
        """Save this step, and where it has just been validated see whether it is among the best."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._land(trainer, on_error)
        before = self.state_dict() | {"best_k_models": copy(self.best_k_models)}
        if self._judgement_is_due:
            self._judgement_is_due = False
            candidates = self._monitor_candidates(trainer)
            self._require_monitor(candidates, trainer.default_root_dir)
            self._save_topk_checkpoint(trainer, candidates)
        for logger in trainer.loggers:
            logger.save()  # a run that goes on has what was logged before
        step, scores = trainer.global_step, self.best_k_models
        keeping = Keeping(
            step=step,
            last=self.keep_last,
            best=[
                Path(p) for p in sorted(scores, key=scores.__getitem__, reverse=self.mode == "max")
            ],
            config=Path(trainer.default_root_dir) / "config.yaml",
        )
        path = step_file(Path(str(self.dirpath)), step)
        trainer.save_checkpoint(path, weights_only=False, storage_options=keeping)
        self._under_way = (self._saved_step, before)
        self._saved_step = step
        if not self.asynchronous:
            self._land(trainer, on_error)

    def _require_monitor(self, logged: Collection[str], run: str) -> None:
        if self.monitor in logged:
            return
        metrics = sorted(name for name in logged if name.startswith("val/"))
        near = get_close_matches(str(self.monitor), metrics, 1)
        mean = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"checkpoint.monitor ({self.monitor}) is not logged; {mean}There are "
            f"{', '.join(metrics)}; go on by `gpt4o-lit fit --resume {run} --checkpoint.monitor "
            f"{near[0] if near else 'NAME'}`"
        )

    def _land(self, trainer: Trainer, on_error: Literal["warn", "raise"] | None = None) -> None:
        """See how the save that is under way ends; all processes hear of it."""
        if self._under_way is None:
            return
        (saved_step, before), self._under_way = self._under_way, None
        error = trainer.strategy.broadcast(self._files.wait())
        if error is None:
            for logger in trainer.loggers if trainer.is_global_zero else []:
                logger.after_save_checkpoint(proxy(self))
            return
        failed, self._saved_step = self._saved_step, saved_step
        self.load_state_dict(before)
        words = f"step {failed} was not saved ({error}); the checkpoints before it are as they were"
        if (on_error or self.on_save_error) == "raise":
            raise OSError(f"{words}; make room, and go on by --resume {trainer.default_root_dir}")
        rank_zero_warn(f"{words}, training goes on, and the next save tries again")

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        """Nothing yet: a step that is among the best is saved once, as the last."""

    def _remove_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        """Nothing: the files remove what is not kept once the new one stands."""


def _is_between_steps(trainer: Any) -> bool:
    """Neither in an accumulation window nor behind the last batch of an epoch, which has to end
    first: Lightning could not go on from either."""
    loop = trainer.fit_loop.epoch_loop
    return not loop._should_accumulate() and not loop.batch_progress.is_last_batch


def _end_ended_epoch(trainer: Any) -> None:
    """Begin the next epoch where a run was saved at the end of one.

    A run that counts steps and not epochs would train on in the epoch that has ended.
    """
    loop = trainer.fit_loop
    if loop.restarted_on_epoch_end:
        loop.epoch_progress.increment_completed()
        loop.epoch_loop.restarting = False
        loop.reset_restart_stage()
