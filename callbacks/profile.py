"""A trace of a few steps: where their time goes, operator by operator."""

from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch.profiler import ProfilerActivity, profile, schedule


class Profile(Callback):
    """Records a few batches with torch.profiler, once a run, and leaves training as it is.

    Each rank writes RUN/profile/rank_R_step_N.json.gz, a Chrome trace, and rank_R_step_N.txt, the
    operators that took the most time. N is the step at which the recording ended.

    Args:
        skip_batches: How many go by before, so that caches are warm and compilation is over.
        warmup_batches: How many are then recorded and thrown away: the profiler's first are slow.
        active_batches: How many are recorded.
        rows: Operators in the table.
        enabled: False records nothing.
    """

    def __init__(
        self,
        skip_batches: int = 10,
        warmup_batches: int = 2,
        active_batches: int = 3,
        rows: int = 30,
        enabled: bool = True,
    ) -> None:
        for name, value, least in (
            ("skip_batches", skip_batches, 0),
            ("warmup_batches", warmup_batches, 0),
            ("active_batches", active_batches, 1),
            ("rows", rows, 1),
        ):
            if value < least:
                raise ValueError(f"{name} ({value}) must be at least {least}; set it to {least}")
        self.skip_batches, self.warmup_batches = skip_batches, warmup_batches
        self.active_batches, self.rows, self.enabled = active_batches, rows, enabled
        self._profiler: profile | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count batches."""
        if not self.enabled:
            return
        activities = [ProfilerActivity.CPU]
        if pl_module.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profiler = profile(
            activities=activities,
            schedule=schedule(
                wait=self.skip_batches,
                warmup=self.warmup_batches,
                active=self.active_batches,
                repeat=1,
            ),
            on_trace_ready=lambda recorded: self._write(recorded, trainer),
        )
        self._profiler.start()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Count; the last batch of the recording writes it."""
        if self._profiler is not None:
            self._profiler.step()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what there is of a run that is over before the recording is."""
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler = None

    def _write(self, recorded: profile, trainer: Trainer) -> None:
        folder = Path(trainer.default_root_dir) / "profile"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"rank_{trainer.global_rank}_step_{trainer.global_step}"
        trace = folder / f"{name}.json.gz"
        recorded.export_chrome_trace(str(trace))
        device = "cuda" if torch.profiler.ProfilerActivity.CUDA in recorded.activities else "cpu"
        table = recorded.key_averages().table(
            sort_by=f"self_{device}_time_total", row_limit=self.rows
        )
        (folder / f"{name}.txt").write_text(table + "\n", encoding="utf-8")
        if trainer.is_global_zero:
            print(f"\nprofile: {trace} (open it at https://ui.perfetto.dev), {name}.txt beside it")
