"""What it costs each step that a run can be stopped behind any, and go on exactly.

OMP_NUM_THREADS=2 python benchmarks/resume_cost.py [--trainer.devices 2 --config with/ddp]

Trains the quickstart for 60 steps and clocks, in the process itself, all that runs at each step for
this alone: whether a signal came, on any process, and whether a save is due. Medians leave the
saves themselves out.
"""

import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from gpt4o_lit.__main__ import main as gpt4o_lit
from gpt4o_lit.callbacks import Checkpoint

STEPS = 60


class Clock:
    """Adds up what methods take, and tells the time between steps."""

    def __init__(self) -> None:
        self.costs: list[float] = []
        self.begins: list[float] = []

    def around(self, name: str) -> None:
        """Have a method of Checkpoint clocked, step by step."""
        method = getattr(Checkpoint, name)

        def clocked(callback: Any, *args: Any) -> Any:
            begin = time.perf_counter()
            if name == "on_train_batch_start":
                self.begins.append(begin)
                self.costs.append(0.0)
            try:
                return method(callback, *args)
            finally:
                self.costs[-1] += time.perf_counter() - begin

        setattr(Checkpoint, name, clocked)


def main() -> None:
    """Train and tell the medians."""
    clock = Clock()
    for name in ("on_train_batch_start", "on_train_batch_end", "_save_and_stop_if_due"):
        clock.around(name)
    with tempfile.TemporaryDirectory() as folder:
        flags = (
            f"--run_dir {Path(folder) / 'run'} --trainer.max_steps {STEPS} --samples.enabled false"
        )
        flags += " --trainer.val_check_interval 1000 --model_card.measure false"
        flags += " --progress.refresh_rate 0"
        assert gpt4o_lit(["fit", "--config", "quickstart", *flags.split(), *sys.argv[1:]]) == 0
    begins = clock.begins[10:]  # those before warm up
    step = median(after - before for before, after in pairwise(begins))
    cost = median(clock.costs[10:-1])
    print(f"{cost * 1e6:.0f} µs of a step of {step * 1e3:.1f} ms: {cost / step:.3%}")


if __name__ == "__main__":
    main()
