"""A callback that notes when each step ended, for whoever measures a run from outside."""

import time
from typing import Any

from lightning import Callback

TIMES: list[float] = []


class Clock(Callback):
    """Appends to TIMES."""

    def on_train_start(self, *_: Any) -> None:
        """Forget the run before."""
        TIMES.clear()

    def on_train_batch_end(self, *_: Any) -> None:
        """Note the time."""
        TIMES.append(time.perf_counter())
