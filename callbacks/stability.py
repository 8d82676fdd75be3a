"""Guards of a run: steps that are not finite, and losses that spike."""

import math
import statistics
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

FEWEST = 20
"""Losses that must be known before one can be unlike them."""


class Stability(Callback):
    """Keeps what is not finite from the weights, and flags losses that spike.

    The loss is that of the whole accumulation window on all processes, and the gradient's norm is
    the one that it is clipped by, so that all processes decide alike and no further word passes
    between them. A window that is skipped leaves weights and optimizer as they were; the count of
    steps, and the schedule with it, goes on. Logs the counts `guard/nonfinite`, `guard/spikes`,
    `guard/skipped` and `guard/rolled_back`; a run that goes on keeps them.

    Args:
        on_nonfinite: Stop the run before the step; skip the window; or skip it and roll back to the
            weights and the optimizer's state of the last checkpoint. The data never goes back, so
            that what has led there is not read again.
        on_spike: Write a line into the log, or skip the window too.
        spike_threshold: How far above the median a loss spikes, in standard deviations, as the
            median distance from the median tells them.
        spike_window: Over how many of the last losses.
        max_skips: More in a row stop the run.
        enabled: False guards nothing.
    """

    needs_gradients: ClassVar[bool] = True
    """Whether it looks at gradients before a step."""

    def __init__(
        self,
        on_nonfinite: Literal["raise", "skip", "roll_back"] = "raise",
        on_spike: Literal["flag", "skip"] = "flag",
        spike_threshold: float = 8.0,
        spike_window: int = 128,
        max_skips: int = 10,
        enabled: bool = True,
    ) -> None:
        if spike_threshold <= 0:
            raise ValueError(f"spike_threshold ({spike_threshold}) must be above 0; set it to 8")
        if spike_window < FEWEST:
            raise ValueError(f"spike_window ({spike_window}) must be at least {FEWEST}; take 128")
        if max_skips < 1:
            raise ValueError(f"max_skips ({max_skips}) must be at least 1; set it to 10")
        self.on_nonfinite, self.on_spike = on_nonfinite, on_spike
        self.spike_threshold, self.max_skips, self.enabled = spike_threshold, max_skips, enabled
        self.counts = dict.fromkeys(("nonfinite", "spikes", "skipped", "rolled_back"), 0)
        self._losses: deque[float] = deque(maxlen=spike_window)
        self._in_a_row = 0

    def on_fit_start(self, trainer: Any, pl_module: LightningModule) -> None:
        """Refuse what cannot be guarded, before training.

        Raises:
            ValueError: the precision scales the loss, or nothing is saved to roll back to.
        """
        if not self.enabled:
            return
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            raise ValueError(
                f"trainer.precision ({trainer.precision}) scales the loss and skips steps that are "
                "not finite by itself; leave Stability out, or take bf16-mixed"
            )
        if self.on_nonfinite == "roll_back" and trainer.checkpoint_callback is None:
            raise ValueError(
                "on_nonfinite (roll_back) needs checkpoints; set trainer.enable_checkpointing to "
                "true, or on_nonfinite to skip"
            )

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Stand between gradients and the optimizer."""
        if self.enabled:
            self._trainer, self._task = trainer, pl_module
            pl_module.guard = self._may_step

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Step aside."""
        if self.enabled:
            pl_module.guard = None

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the counts where the step is logged."""
        if self.enabled and trainer.global_step % trainer.log_every_n_steps == 0:
            pl_module.log_dict({f"guard/{name}": float(n) for name, n in self.counts.items()})

    def state_dict(self) -> dict[str, Any]:
        """The counts, and the losses that the next one is compared with."""
        return {"counts": self.counts, "losses": list(self._losses), "in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.counts = dict(state_dict["counts"])
        self._losses.extend(state_dict["losses"])
        self._in_a_row = state_dict["in_a_row"]

    def _may_step(self, loss: float, own_loss: float, norm: float) -> bool:
        if math.isfinite(loss) and math.isfinite(norm):
            return self._may_step_finitely(loss)
        self.counts["nonfinite"] += 1
        what = self._nonfinite(loss, own_loss, norm)
        if self.on_nonfinite == "raise":
            raise ValueError(
                f"{what}; weights and optimizer are as before it: lower the learning rate, or set "
                "on_nonfinite of Stability to skip or roll_back"
            )
        self._skip(what)
        if self.on_nonfinite == "roll_back":
            self._roll_back()
        return False

    def _may_step_finitely(self, loss: float) -> bool:
        score = spike_score(loss, self._losses)
        self._losses.append(loss)
        if score <= self.spike_threshold:
            self._in_a_row = 0
            return True
        self.counts["spikes"] += 1
        what = f"step {self._step}: the loss spikes to {loss:.4g}, {score:.1f} deviations up"
        if self.on_spike == "skip":
            self._skip(what)
            return False
        rank_zero_info(what)
        self._in_a_row = 0
        return True

    @property
    def _step(self) -> int:
        return self._trainer.global_step + 1

    def _nonfinite(self, loss: float, own_loss: float, norm: float) -> str:
        """What was not finite, and on which ranks; all ranks ask."""
        if math.isfinite(loss):
            everyone = range(self._trainer.world_size)
            return f"step {self._step}: the gradient's norm is {norm} on {_named(everyone)}"
        losses = self._task.all_gather(torch.tensor(own_loss, dtype=torch.float64)).view(-1)
        ranks = [rank for rank, own in enumerate(losses.tolist()) if not math.isfinite(own)]
        return f"step {self._step}: the loss is {loss} on {_named(ranks)}"

    def _skip(self, what: str) -> None:
        self._in_a_row += 1
        self.counts["skipped"] += 1
        if self._in_a_row > self.max_skips:
            raise ValueError(
                f"{what}, and max_skips ({self.max_skips}) steps before it were skipped; lower "
                "the learning rate, or look at the data"
            )
        rank_zero_info(f"{what}; skipped, {self._in_a_row} in a row")

    def _roll_back(self) -> None:
        """Take weights and optimizer's state of the last checkpoint; settings stay as they are."""
        trainer: Any = self._trainer
        path = Path(str(trainer.checkpoint_callback.dirpath)) / "last.ckpt"
        if not path.exists():
            raise ValueError(
                f"step {self._step} is not finite, and there is no checkpoint yet to roll back to; "
                "set checkpoint.every_n_train_steps lower, or on_nonfinite to skip"
            )
        saved = trainer.strategy.load_checkpoint(path)
        if saved["transformer_config"] != self._task.transformer.config.to_dict():
            raise ValueError(
                f"step {self._step} is not finite, and the network was cut since the last "
                "checkpoint; set checkpoint.every_n_train_steps lower, or on_nonfinite to skip"
            )
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        settings = [{k: v for k, v in group.items() if k != "params"} for group in groups]
        # Where weights are averaged, `state_dict` is the average.
        weights = saved.get("current_model_state", saved["state_dict"])
        trainer.strategy.load_model_state_dict({"state_dict": weights})
        trainer.strategy.load_optimizer_state_dict(saved)
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        for group, kept in zip(groups, settings, strict=True):
            group.update(kept)
        self.counts["rolled_back"] += 1
        rank_zero_info(f"step {self._step}: rolled back to step {saved['global_step']}")


def spike_score(loss: float, losses: Collection[float]) -> float:
    """How many standard deviations a loss lies above the median of earlier ones.

    The deviation is 1.4826 times the median distance from the median, which outliers do not move
    (the modified z-score of Iglewicz and Hoaglin, 1993), and at least a thousandth of the median,
    for losses that hardly differ. Of fewer than 20 losses nothing can be told: 0.
    """
    if len(losses) < FEWEST:
        return 0.0
    median = statistics.median(losses)
    deviation = 1.4826 * statistics.median(abs(each - median) for each in losses)
    return (loss - median) / max(deviation, 1e-3 * abs(median), 1e-12)


def _named(ranks: Collection[int]) -> str:
    numbers = ", ".join(map(str, ranks))
    return f"rank {numbers}" if len(ranks) == 1 else f"ranks {numbers}"
