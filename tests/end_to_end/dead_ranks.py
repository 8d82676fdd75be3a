"""Kills random ranks of a launch at random instants, and compares what comes of its run with one
that was left alone.

    python -m tests.end_to_end.dead_ranks 20 1    # kills, seed; for benchmarks/RESULTS.md

The ranks are started as srun starts them, each `gpt4o-lit fit` from its arguments on, and after a
kill once more, as a job is that has been requeued.
"""

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import chdir
from pathlib import Path
from typing import Any

import torch

from tests.end_to_end.survival import FLAGS as SURVIVAL_FLAGS
from tests.end_to_end.survival import LONGEST, difference, ended, newest, outcome, start

RANKS = 2
TOLD = 20.0
"""Seconds after which those who were not told at once are told that one has died."""
FLAGS = (
    *SURVIVAL_FLAGS,
    "--config", "with/ddp",
    "--data.init_args.batch_size", "8",
    "--model.init_args.optimizer", "gpt4o_lit.optim.AdamW",
)  # fmt: skip


def start_ranks(restarts: int, *arguments: str, ranks: int = RANKS) -> list[int]:
    """The processes of a job on one node."""
    job = {
        "SLURM_JOB_ID": str(10_000 + os.getpid() % 10_000), "SLURM_JOB_NAME": "test",
        "SLURM_NTASKS": str(ranks), "SLURM_NTASKS_PER_NODE": str(ranks), "SLURM_NNODES": "1",
        "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost",
        "SLURM_RESTART_COUNT": str(restarts),
    }  # fmt: skip
    before, processes = dict(os.environ), []
    for rank in range(ranks):
        os.environ |= job | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        processes.append(start(*arguments))
    os.environ.clear()
    os.environ |= before
    return processes


def all_ended(processes: list[int], seconds: float) -> list[int | None]:
    """How each ended within that time, if it did."""
    deadline = time.monotonic() + seconds
    return [ended(process, deadline) for process in processes]


def turn(restarts: int, arguments: tuple[str, ...], draws: random.Random, seconds: float) -> Any:
    """Start all, and kill one some time later: whether it was killed, and how long the others took
    to end. Half the time they are told to at once, as by srun; else they have to find out, and are
    told after `TOLD` seconds, for at the start they cannot."""
    processes = start_ranks(restarts, *arguments)
    victim, after = draws.randrange(RANKS), draws.uniform(0, seconds)
    status = ended(processes[victim], time.monotonic() + after)
    begin = time.monotonic()
    if status is None:
        os.kill(processes[victim], signal.SIGKILL)
        status = ended(processes[victim], begin + LONGEST)
    others = [process for process in processes if process != processes[victim]]
    statuses = all_ended(others, TOLD * (draws.random() < 0.5)) if status else [None] * len(others)
    if status and None in statuses:
        for process, code in zip(others, statuses, strict=True):
            if code is None:
                os.kill(process, signal.SIGTERM)
    late = [process for process, code in zip(others, statuses, strict=True) if code is None]
    statuses = all_ended(late, LONGEST)
    took = time.monotonic() - begin
    assert None not in statuses, f"the others hang: {log()}"
    killed = status == -signal.SIGKILL
    assert killed or status == 0, log()
    return killed, took


def log() -> str:
    """What was said last."""
    return Path("run.log").read_text()[-3000:]


def going_on() -> int:
    """How often a launch went on from a checkpoint."""
    return Path("run.log").read_text().count(": going on in run")


def campaign(
    home: Path, config: Path, kills: int, seed: int, flags: tuple[str, ...] = FLAGS
) -> dict[str, Any]:
    """Kill so many ranks at least, and end the run.

    Raises:
        AssertionError: a rank hung, a saved step was lost, or a run ended other than the one that
            was left alone.
    """
    draws = random.Random(seed)
    counts: dict[str, Any] = {"kills": 0, "runs": 0, "went on": 0, "longest wait": 0.0}
    arguments = ("fit", "--config", str(config), "--run_dir", "run", *flags)
    with chdir(home):
        begin = time.monotonic()
        assert all_ended(start_ranks(0, *arguments), LONGEST) == [0] * RANKS, log()
        seconds = time.monotonic() - begin
        expected = outcome(Path("run"))
        while counts["kills"] < kills:
            shutil.rmtree("run")
            killed, restarts, patience = True, 0, seconds
            while killed:
                saved, last = newest(), Path("run/checkpoints/last.ckpt").exists()
                before = going_on()
                killed, took = turn(restarts, arguments, draws, patience)
                assert newest() >= saved, "a saved step was lost"
                went_on = going_on() - before
                assert went_on == last or (killed and not went_on), f"it did not go on: {log()}"
                restarts += 1
                counts["kills"] += killed
                counts["went on"] += went_on
                counts["longest wait"] = max(counts["longest wait"], round(took, 1) * killed)
                patience *= 1.0 if newest() > saved else 1.2
            found = difference(expected, outcome(Path("run")))
            assert found is None, f"run {counts['runs']} differs at {found}: {counts}"
            counts["runs"] += 1
            print(counts, flush=True)
    return counts


if __name__ == "__main__":
    from tests.end_to_end.conftest import write_config

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        kills, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
        with chdir(folder):
            path = write_config(Path(folder))
        print(campaign(Path(folder), path, kills, seed), f"{time.monotonic() - begin:.0f} s")
