"""Runs one after the other or side by side, whatever becomes of each."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gpt4o_lit.experiments.ablation import Run
from gpt4o_lit.experiments.launch import Job
from gpt4o_lit.experiments.record import LOG, Record

PAUSE = 0.02
"""Seconds from one look at the processes to the next."""

Start = Callable[[Run, int], Job]
"""Begins a run, or goes on with it, in one of so many places."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a run."""

    run: Run
    seconds: float
    """From its start, or from where it went on."""
    error: str | None = None
    """Why it did not finish."""


def run_all(
    runs: list[Run], start: Start, parallel: int, ended: Callable[[Outcome], None]
) -> list[Outcome]:
    """Start each run as soon as there is a place, and tell what becomes of it.

    A run that somebody else has begun and that goes on is waited for.

    Raises:
        KeyboardInterrupt: this process was told to stop; all runs have saved and ended.
    """
    waiting, outcomes = list(runs), []
    active: dict[int, tuple[Run, Job, float]] = {}
    with terminated_by_interrupt():
        try:
            while waiting or active:
                for slot in sorted(set(range(parallel)) - active.keys())[: len(waiting)]:
                    run = waiting.pop(0)
                    begun = time.monotonic()
                    active[slot] = (run, start(run, slot), begun)
                for slot, (run, job, begun) in list(active.items()):
                    code = job.poll()
                    if code is not None:
                        del active[slot]
                        outcomes.append(outcome_of(run, code, time.monotonic() - begun))
                        ended(outcomes[-1])
                time.sleep(PAUSE)
        except BaseException:
            stop_all([job for _, job, _ in active.values()])
            raise
    return outcomes


def outcome_of(run: Run, code: int, seconds: float) -> Outcome:
    """What became of a run that ended with a code; why it failed is noted in its manifest."""
    record = run.record
    error = None
    if code != 0 or record.status != "finished":
        error = record.error or _why(record, code)
        if record.status != "stopped":
            record.fail(error)
    return Outcome(run=run, seconds=seconds, error=error)


def _why(record: Record, code: int) -> str:
    """The last line that a run printed, or the signal that ended it."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}" + ("; was memory short?" if name == "SIGKILL" else "")
    if code > 128:
        return f"stopped by {signal.Signals(code - 128).name}"
    log = record.path / LOG
    lines = log.read_text("utf-8", "replace").strip().splitlines() if log.is_file() else []
    return lines[-1].strip() if lines else f"ended with code {code} and printed nothing"


def stop_all(jobs: Sequence[Job]) -> None:
    """Have all save and end; who is told again ends them."""
    try:
        for job in jobs:
            job.stop()
        while any(job.poll() is None for job in jobs):
            time.sleep(PAUSE)
    except KeyboardInterrupt:
        for job in jobs:
            job.kill()
        raise


@contextlib.contextmanager
def terminated_by_interrupt() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
