"""Does harm to runs at random, and compares what comes of them with runs that were left alone.

    python -m tests.end_to_end.survival kills 200    # counts and times, for benchmarks/RESULTS.md
    python -m tests.end_to_end.survival disks 50     # no file may grow any more
    python -m tests.end_to_end.survival bytes 50     # a checkpoint is cut off, or a bit flips

One process imports everything and forks each run, which is `gpt4o-lit fit` from its arguments on.
"""

import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any

import torch

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from gpt4o_lit.interop.checkpoints import give_name, step_file
from gpt4o_lit.run_directory import kept_steps

LONGEST = 60.0
"""Seconds after which a run hangs."""
FLAGS = (
    "--model.init_args.optimizer", "gpt4o_lit.optim.Muon",
    "--data.init_args.batch_size", "16",  # an odd number of batches in an epoch
    "--trainer.accumulate_grad_batches", "2", "--trainer.log_every_n_steps", "3",
    "--trainer.max_steps", "40", "--trainer.val_check_interval", "8",
    "--checkpoint.every_n_train_steps", "2",
)  # fmt: skip


def start(*arguments: str) -> int:
    """A process that runs a command line, and what it prints in run.log."""
    process = os.fork()
    if process:
        return process
    try:
        log = os.open("run.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1) for stream in (1, 2))
        torch.set_num_threads(1)  # those of the parent are not here
        os._exit(main(list(arguments)))
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)


def ended(process: int, deadline: float) -> int | None:
    """How a process ended by then, if it did."""
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(0.002, left))


def killed(process: int, after: float, in_a_save: float | None) -> str:
    """Kill a process after so many seconds, or as many behind the start of the save that then comes
    next; which of these it was, or `end`."""
    begin = time.time()
    outcome = ended(process, time.monotonic() + after)
    limit = time.monotonic() + LONGEST
    while in_a_save is not None and outcome is None:
        if saves(begin):
            time.sleep(in_a_save)
            break
        outcome = ended(process, time.monotonic() + 1e-4)
        assert time.monotonic() < limit, "it hangs"
    if outcome is None:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        return "step" if in_a_save is None else "save"
    assert outcome == 0, Path("run.log").read_text()[-3000:]
    return "end"


def saves(since: float) -> bool:
    """Whether a checkpoint is being written, and not only left by one who was killed before."""
    for part in Path("run/checkpoints").glob("*.part"):
        with suppress(FileNotFoundError):
            if part.stat().st_mtime > since:
                return True
    return False


def survive(
    config: Path, flags: tuple[str, ...], draws: random.Random, seconds: float
) -> Iterator[str]:
    """Kill a run and go on with it until it ends: the instants at which it was killed.

    On a machine that has slowed down, more time is given until something has been saved.
    """
    while True:
        before = newest()
        if Path("run/checkpoints/last.ckpt").exists():
            process = start("fit", "--resume", "run")
        else:
            shutil.rmtree("run", ignore_errors=True)
            process = start("fit", "--config", str(config), "--run_dir", "run", *flags)
        in_a_save = draws.uniform(0, 0.01) if draws.random() < 0.4 else None
        when = killed(process, draws.uniform(0, seconds), in_a_save)
        if when == "end":
            return
        seconds *= 1.0 if newest() > before else 1.2
        yield when


def newest() -> int:
    """The last step that is saved."""
    return next(iter(kept_steps(Path("run/checkpoints"))), 0)


def whole(config: Path, flags: tuple[str, ...]) -> float:
    """A run that nobody kills; its seconds."""
    begin = time.monotonic()
    process = start("fit", "--config", str(config), "--run_dir", "run", *flags)
    assert ended(process, begin + LONGEST) == 0, Path("run.log").read_text()[-3000:]
    return time.monotonic() - begin


def outcome(run: Path) -> dict[str, Any]:
    """All that a run leaves which is not about time: every part of each checkpoint, each metric."""
    files = {file.name: torch.load(file, weights_only=True)
             for file in sorted((run / "checkpoints").glob("*.ckpt"))}  # fmt: skip
    for saved in files.values():
        del saved["callbacks"]["Throughput"]["seconds"]
    rows = read_metrics(run / "metrics.csv")
    metrics = [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in rows]
    return {"files": files, "metrics": metrics, "left": list(run.rglob("*.part"))}


def difference(ours: Any, theirs: Any, place: str = "") -> str | None:
    """Where two outcomes differ first, to the bit."""
    if type(ours) is not type(theirs):
        return place
    if isinstance(ours, torch.Tensor):
        same = ours.dtype == theirs.dtype and torch.equal(ours, theirs)
        return None if same else place
    if isinstance(ours, dict):
        if ours.keys() != theirs.keys():
            return f"{place}: {ours.keys() ^ theirs.keys()}"
        pairs = [(ours[key], theirs[key], f"{place}/{key}") for key in ours]
    elif isinstance(ours, list | tuple):
        if len(ours) != len(theirs):
            return f"{place}: {len(ours)} and {len(theirs)}"
        pairs = [(*pair, f"{place}/{i}") for i, pair in enumerate(zip(ours, theirs, strict=True))]
    else:
        return None if ours == theirs else f"{place}: {ours!r} and {theirs!r}"
    return next((found for pair in pairs if (found := difference(*pair))), None)


def campaign(
    home: Path, config: Path, kills: int, seed: int, flags: tuple[str, ...] = FLAGS
) -> dict[str, int]:
    """Kill so many times at least, and end the run; how many came in a save and elsewhere.

    Raises:
        AssertionError: a run ended other than the one that was never killed.
    """
    draws, counts = random.Random(seed), {"save": 0, "step": 0, "runs": 0}
    with chdir(home):
        seconds = whole(config, flags)
        expected = outcome(Path("run"))
        while counts["save"] + counts["step"] < kills:
            shutil.rmtree("run")
            for when in survive(config, flags, draws, seconds):
                counts[when] += 1
            found = difference(expected, outcome(Path("run")))
            assert found is None, f"run {counts['runs']} differs at {found}: {counts}"
            counts["runs"] += 1
            print(counts, flush=True)
    return counts


def full_disks(
    home: Path, config: Path, disks: int, seed: int, flags: tuple[str, ...] = FLAGS
) -> dict[str, int]:
    """Fill the disk of so many runs at random instants and bytes, make room, and go on.

    Raises:
        AssertionError: a run lost more than the steps since its last checkpoint, or ended other
            than the one that was left alone.
    """
    draws, counts = random.Random(seed), {"failed": 0, "in time": 0, "saved steps": 0}
    with chdir(home):
        seconds = whole(config, flags)
        expected = outcome(Path("run"))
        largest = Path("run/checkpoints/last.ckpt").stat().st_size
        while counts["failed"] < disks:
            shutil.rmtree("run")
            process = start("fit", "--config", str(config), "--run_dir", "run", *flags)
            status = ended(process, time.monotonic() + draws.uniform(0, seconds))
            if status is None:
                size = draws.randrange(largest)
                resource.prlimit(process, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
                status = ended(process, time.monotonic() + LONGEST)
                assert status is not None, "it hangs"
            counts["in time" if status == 0 else "failed"] += 1
            saved = newest()
            counts["saved steps"] += saved
            again = ("--resume", "run") if saved else ("--config", str(config), "--run_dir", "run")
            if not saved:
                shutil.rmtree("run", ignore_errors=True)
            process = start("fit", *again, *([] if saved else flags))
            assert ended(process, time.monotonic() + LONGEST) == 0, Path("run.log").read_text()
            found = difference(expected, outcome(Path("run")))
            assert found is None, f"it differs at {found}: {counts}"
            print(counts, flush=True)
    return counts


def damages(
    home: Path, config: Path, times: int, seed: int, flags: tuple[str, ...] = FLAGS
) -> dict[str, int]:
    """Cut off or flip a bit of the last checkpoint, see it refused, and go back to the one before.

    Raises:
        AssertionError: it was not refused, or the run ended other than it had before.
    """
    draws, counts = random.Random(seed), {"flipped": 0, "cut off": 0}
    with chdir(home):
        whole(config, (*flags, "--checkpoint.keep_last", "3"))
        expected = outcome(Path("run"))
        shutil.move("run", "kept")
        while sum(counts.values()) < times:
            shutil.copytree("kept", "run", symlinks=True)
            last = step_file(Path("run/checkpoints"), newest())
            give_name(last, Path("run/checkpoints/last.ckpt"))
            content = bytearray(last.read_bytes())
            place, kind = draws.randrange(len(content)), draws.choice(list(counts))
            if kind == "flipped":
                content[place] ^= 1 << draws.randrange(8)
            else:
                del content[place:]
            last.write_bytes(content)
            for again, wanted in (((), 2), (("--resume_from", "previous"), 0)):
                process = start("fit", "--resume", "run", *again)
                status = ended(process, time.monotonic() + LONGEST)
                said = Path("run.log").read_text()[-3000:]
                assert status == wanted, f"{kind} at {place}: {status}\n{said}"
                assert again or "last.ckpt is damaged" in said, said
            found = difference(expected, outcome(Path("run")))
            assert found is None, f"{kind} at {place}: it differs at {found}"
            shutil.rmtree("run")
            counts[kind] += 1
            print(counts, flush=True)
    return counts


HARMS = {"kills": campaign, "disks": full_disks, "bytes": damages}

if __name__ == "__main__":
    from tests.end_to_end.conftest import write_config

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        harm, times = HARMS[sys.argv[1]], int(sys.argv[2])
        draw = int(sys.argv[3]) if len(sys.argv) > 3 else 0
        with chdir(folder):
            path = write_config(Path(folder))
        print(harm(Path(folder), path, times, draw), f"{time.monotonic() - begin:.0f} s")
