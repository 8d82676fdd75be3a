"""Tokens per second, the share of the machine's peak, the wait for data, and memory."""

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import PassThroughProfiler

from gpt4o_lit.evaluation.deploy import peak_memory
from gpt4o_lit.evaluation.efficiency import peak_flops
from gpt4o_lit.strategies import data_place

DTYPES = {"16": torch.float16, "32": torch.float32, "64": torch.float64}


class Throughput(Callback):
    """Logs `perf/tokens_per_second` of all processes and `perf/mfu`, the share of the peak.

    `perf/data_wait` is the share of the time that is spent on getting batches, and
    `perf/memory_gib` the most memory so far, of the device where it is a GPU; both of the process
    that has most. With several each one's memory is logged beside it. A profiler in the Trainer's
    key takes the place of the clock for data.

    `perf/tokens`, `perf/flops` and `perf/seconds` are all that training has taken so far, of all
    processes, so that runs can be compared at equal cost; a run that goes on counts on.

    The clock stands still from the start of a validation to the next batch, so that neither it nor
    the samples, checkpoints and plots that follow it count as training.

    Args:
        enabled: False logs nothing.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self._tokens, self._flops, self._since, self._logged_step = 0, 0.0, 0.0, 0
        self._paused: float | None = 0.0
        self._fetching = FetchClock()
        self._taken, self._readers = {"tokens": 0.0, "flops": 0.0, "seconds": 0.0}, 1

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Look up the peak once."""
        if not self.enabled:
            return
        dtype = product_dtype(str(trainer.precision))
        _, self._readers = data_place(trainer)  # those that share a network read the same
        self._peak = peak_flops(pl_module.device, dtype) * trainer.world_size
        if type(trainer.profiler) is PassThroughProfiler:  # type: ignore[attr-defined]
            trainer.profiler = self._fetching  # type: ignore[attr-defined]
        self._tokens, self._flops, self._fetching.seconds = 0, 0.0, 0.0
        self._since, self._paused = _now(pl_module.device), None
        self._logged_step = trainer.global_step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Let the clock go on."""
        if self._paused is not None:
            self._since += _now(pl_module.device) - self._paused
            self._fetching.seconds -= self._fetching.last
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
        if step == self._logged_step or (step % every and step != trainer.max_steps):
            return
        self._logged_step = step  # micro-batches that do not step come by here too
        now = _now(pl_module.device)
        rate = self._readers / max(now - self._since, 1e-9)
        self._taken = self._taken_until(now)
        pl_module.log_dict({f"perf/{what}": amount for what, amount in self._taken.items()})
        pl_module.log("perf/tokens_per_second", self._tokens * rate, prog_bar=True)
        pl_module.log("perf/mfu", self._flops * rate / self._peak)
        self._log_worst(trainer, pl_module, self._fetching.seconds / max(now - self._since, 1e-9))
        self._tokens, self._flops, self._since, self._fetching.seconds = 0, 0.0, now, 0.0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        if self.enabled:
            self._paused = _now(pl_module.device)

    def state_dict(self) -> dict[str, float]:
        """What training has taken so far."""
        stopped = time.perf_counter() if self._paused is None else self._paused
        return self._taken_until(stopped) if self.enabled else {}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Count on from there."""
        self._taken = dict(state_dict)

    def _taken_until(self, now: float) -> dict[str, float]:
        done, readers = self._taken, self._readers
        return {
            "tokens": done["tokens"] + self._tokens * readers,
            "flops": done["flops"] + self._flops * readers,
            "seconds": done["seconds"] + now - self._since,
        }

    def _log_worst(self, trainer: Any, pl_module: Any, wait: float) -> None:
        own = torch.tensor([wait, _peak_gib(pl_module.device)], device=pl_module.device)
        waits, peaks = pl_module.all_gather(own).view(-1, 2).T.tolist()
        if trainer.profiler is self._fetching:
            pl_module.log("perf/data_wait", max(waits))
        pl_module.log("perf/memory_gib", max(peaks))
        if len(peaks) > 1:
            by_rank = {f"perf/memory_gib_rank_{rank}": peak for rank, peak in enumerate(peaks)}
            pl_module.log_dict(by_rank)


class FetchClock(PassThroughProfiler):
    """Hears from the Trainer when it asks for a training batch and when it has it."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds, self.last, self._asked = 0.0, 0.0, 0.0

    def start(self, action_name: str) -> None:
        """Look at the clock."""
        if action_name.endswith("train_dataloader_next"):
            self._asked = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """Add up."""
        if action_name.endswith("train_dataloader_next"):
            self.last = time.perf_counter() - self._asked
            self.seconds += self.last


def product_dtype(precision: str) -> torch.dtype:
    """In what a Trainer of this precision multiplies matrices; bfloat16 where nothing else."""
    return DTYPES.get(precision.partition("-")[0], torch.bfloat16)


def _now(device: torch.device) -> float:
    """Seconds on the clock once the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak_gib(device: torch.device) -> float:
    """The most memory that the process has held: on a GPU, or else resident."""
    on_gpu = device.type == "cuda"
    return (torch.cuda.max_memory_allocated(device) if on_gpu else peak_memory()) / 2**30
