"""Starts runs as torchrun and srun do, and what may befall a rank of them."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from lightning import Callback

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
}
QUICK = (
    "--trainer.max_steps=12", "--checkpoint.every_n_train_steps=2", "--samples.enabled=false",
    "--trainer.val_check_interval=6",
)  # fmt: skip


class DiesOnce(Callback):
    """Kills rank 1 in a step, the first time that it comes there."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        last = trainer.world_size - 1
        if trainer.global_step != self.step or trainer.global_rank != last:
            return
        mark = Path("died")
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def torchrun(*arguments: str, restarts: int = 3, name: str = "a", **extra: str) -> list[str]:
    """The command of a launch of two processes on this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += [f"--max-restarts={restarts}", f"--rdzv-id={name}", "--monitor-interval=0.05"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    return [*command, *(f"--{k}={v}" for k, v in extra.items()), "-m", "gpt4o_lit", *arguments]


def start(command: list[str], **environment: str) -> subprocess.Popen[str]:
    """A process with all it prints in one pipe."""
    return subprocess.Popen(
        command, env=ENVIRONMENT | environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def said(process: subprocess.Popen[str], seconds: float = 120) -> str:
    """What it printed, once it has ended; nothing of it stays."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
