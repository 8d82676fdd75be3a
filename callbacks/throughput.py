"""Tokens per second and the share of the machine's peak that the model's FLOPs make."""

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from gpt4o_lit.evaluation.efficiency import peak_flops

DTYPES = {"16": torch.float16, "32": torch.float32, "64": torch.float64}


class Throughput(Callback):
    """Logs `perf/tokens_per_second` of all processes and `perf/mfu`.

    The clock stands still from the start of a validation to the next batch, so that neither it nor
    the samples, checkpoints and plots that follow it count as training.

    Args:
        enabled: False logs nothing.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self._tokens, self._flops, self._since, self._logged_step = 0, 0.0, 0.0, 0
        self._paused: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Look up the peak once."""
        if not self.enabled:
            return
        dtype = product_dtype(str(trainer.precision))
        self._peak = peak_flops(pl_module.device, dtype) * trainer.world_size
        self._tokens, self._flops = 0, 0.0
        self._since, self._paused = _now(pl_module.device), None
        self._logged_step = trainer.global_step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Let the clock go on."""
        if self._paused is not None:
            self._since += _now(pl_module.device) - self._paused
            self._paused = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count; on a logging step, tell the speed since the last one."""
        if not self.enabled:
            return
        tokens, flops = pl_module.work(batch)
        self._tokens, self._flops = self._tokens + tokens, self._flops + flops
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step == self._logged_step or step % every:
            return
        self._logged_step = step  # micro-batches that do not step come by here too
        now = _now(pl_module.device)
        rate = trainer.world_size / max(now - self._since, 1e-9)
        pl_module.log("perf/tokens_per_second", self._tokens * rate, prog_bar=True)
        pl_module.log("perf/mfu", self._flops * rate / self._peak)
        self._tokens, self._flops, self._since = 0, 0.0, now

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        if self.enabled:
            self._paused = _now(pl_module.device)


def product_dtype(precision: str) -> torch.dtype:
    """In what a Trainer of this precision multiplies matrices; bfloat16 where nothing else."""
    return DTYPES.get(precision.partition("-")[0], torch.bfloat16)


def _now(device: torch.device) -> float:
    """Seconds on the clock once the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
