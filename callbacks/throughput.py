"""Tokens per second and the share of the machine's peak that the model's FLOPs make."""

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from gpt4o_lit.evaluation.efficiency import peak_flops
from gpt4o_lit.model import flops_per_token


class Throughput(Callback):
    """Logs `perf/tokens_per_second` of all processes and `perf/mfu`; validation is not counted.

    Args:
        enabled: False logs nothing.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self._tokens, self._since, self._paused = 0, 0.0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Look up the peak and the cost of a token once."""
        if not self.enabled:
            return
        dtype = torch.bfloat16 if "bf16" in str(trainer.precision) else torch.float32
        self._peak = peak_flops(pl_module.device, dtype) * trainer.world_size
        seq_len = trainer.datamodule.seq_len  # type: ignore[attr-defined]
        self._flops = flops_per_token(pl_module.transformer.config, seq_len)
        self._restart()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count; on a logging step, tell the speed since the last one."""
        if not self.enabled:
            return
        tokens = batch["tokens"]
        self._tokens += tokens.shape[0] * (tokens.shape[1] - 1)
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if trainer.global_step == 0 or trainer.global_step % every:
            return
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self._since
        speed = self._tokens * trainer.world_size / max(seconds, 1e-9)
        pl_module.log("perf/tokens_per_second", speed, prog_bar=True)
        pl_module.log("perf/mfu", speed * self._flops / self._peak)
        self._restart()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the clock go on."""
        self._since += time.perf_counter() - self._paused

    def _restart(self) -> None:
        self._tokens, self._since = 0, time.perf_counter()
