"""Where several processes train: none waits for one that is gone, and all name it."""

import signal
from typing import Any

import torch.distributed as dist
from lightning import Callback, LightningModule
from torch.distributed.distributed_c10d import _get_default_store

from gpt4o_lit.strategies.departures import blame, take_leave, waited_in_vain

PATIENCE = 10.0
"""Seconds in which ranks that wait in one collective give up, one after the other."""
HASTE = 1.0
"""Seconds that there are for it where this process has been told to stop."""


class Departures(Callback):
    """Turns a collective that failed into one line with the rank that did not come to it.

    When a rank leaves by an error it asks the others why they leave. Where all have errors of their
    own, such as a loss that is not finite, the run ends as usual and is saved; else nothing more is
    done together. How long a rank is waited for is the strategy's `timeout`.
    """

    def on_exception(
        self, trainer: Any, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Find out who is missing; before checkpoints, which would wait for it.

        Raises:
            ValueError: others were waited for in vain.
        """
        if not (dist.is_available() and dist.is_initialized() and isinstance(exception, Exception)):
            return
        in_vain = waited_in_vain(exception)
        reason = "" if in_vain else " ".join(f"{type(exception).__name__}: {exception}".split())
        processes = getattr(trainer.strategy.launcher, "procs", [])  # the first of a machine's has

        def ended(rank: int) -> str:
            place = rank - trainer.global_rank - 1
            code = processes[place].poll() if 0 <= place < len(processes) else None
            return "" if code is None else _ending(processes[place].pid, code)

        # Who stops this process, as torchrun and srun do when another has died, knows of it.
        stopped = getattr(trainer.checkpoint_callback, "told_to_stop", False)
        told = take_leave(
            _get_default_store(),
            trainer.global_rank,
            trainer.world_size,
            reason,
            HASTE if stopped else PATIENCE,
            ended,
        )
        if not in_vain:
            if not all(told.values()):
                raise exception  # those who wait read in the store why
            return
        for rank, answer in told.items():
            place = rank - trainer.global_rank - 1
            if answer is None and 0 <= place < len(processes):
                processes[place].kill()
        raise ValueError(f"step {trainer.global_step + 1}: {blame(told)}") from exception


def _ending(pid: int, code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"the process (pid {pid}) ended with code {code}"
    return f"the process (pid {pid}) was killed by {signal.Signals(-code).name}"
