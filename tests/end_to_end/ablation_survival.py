"""Kills an ablation at random instants and starts it again, until all its runs have ended.

python -m tests.end_to_end.ablation_survival 20    # counts and times, for benchmarks/RESULTS.md
"""

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import chdir, suppress
from pathlib import Path

import psutil
import torch
import yaml

from gpt4o_lit.__main__ import main
from gpt4o_lit.experiments.launch import write_into
from gpt4o_lit.experiments.record import Record, records_below
from tests.end_to_end.survival import difference, ended, outcome

LONGEST = 600.0
"""Seconds after which an ablation hangs."""


def write_grid(home: Path, variants: int, seeds: int, **flags: object) -> Path:
    """A grid over the tiny config, by its learning rate."""
    values = {
        "base": "tiny.yaml",
        "flags": {"model_card.measure": False, "samples.enabled": False} | flags,
        "seeds": list(range(seeds)),
        "one_at_a_time": {
            "model.init_args.optimizer.init_args.lr": [0.0007 * n for n in range(1, variants)]
        },
    }
    path = home / "grid.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def ablate(grid: Path, *flags: str) -> int:
    """A process that runs a grid."""
    return forked("ablate", str(grid), "--threads", "1", *flags)


def forked(*arguments: str) -> int:
    """A process that runs a command line, and what it prints in run.log."""
    process = os.fork()
    if process:
        return process
    try:
        write_into(Path("run.log"))
        torch.set_num_threads(1)  # those of the parent are not here
        os._exit(main(list(arguments)))
    finally:
        os._exit(1)


def finished(directory: str) -> dict[Path, tuple[str, float]]:
    """What each run that has ended says of itself, and when it saved last."""
    return {
        record.path: (
            (record.path / "manifest.json").read_text(),
            (record.path / "checkpoints" / "last.ckpt").stat().st_mtime,
        )
        for record in (records_below(Path(directory)) if Path(directory).is_dir() else ())
        if record.status == "finished"
    }


def kill(process: int, with_runs: bool) -> None:
    """End it at once, with the runs that it has started or without."""
    runs = psutil.Process(process).children(recursive=True) if with_runs else []
    os.kill(process, signal.SIGKILL)
    for run in runs:
        with suppress(psutil.NoSuchProcess):
            run.kill()
    os.waitpid(process, 0)


def campaign(home: Path, grid: Path, kills: int, seed: int) -> dict[str, float]:
    """Kill so many times, then let it end: kills, and the times that a run had ended before one.

    Raises:
        AssertionError: a run that had ended was touched, or one differs from that of an ablation
            that nobody killed.
    """
    draws, counts = random.Random(seed), {"kills": 0.0, "kept": 0.0}
    with chdir(home):
        begin = time.monotonic()
        process = ablate(grid, "--dir", "killed")
        assert ended(process, begin + LONGEST) == 0, Path("run.log").read_text()
        counts["seconds"] = time.monotonic() - begin
        Path("killed").rename("whole")  # checkpoints have the path that they were written to
        while counts["kills"] < kills:
            shutil.rmtree("killed", ignore_errors=True)
            _survive(grid, kills, draws, counts)
            _require_same()
    return counts


def _survive(grid: Path, kills: int, draws: random.Random, counts: dict[str, float]) -> None:
    """Kill an ablation again and again until it ends, and see what each kill has left."""
    longest = max(2.0, 1.5 * counts["seconds"] / kills)
    code = None
    while code is None:
        before = finished("killed")
        process = ablate(grid, "--dir", "killed")
        code = ended(process, time.monotonic() + draws.uniform(0.2, longest))
        if code is None and counts["kills"] >= kills:
            code = ended(process, time.monotonic() + LONGEST)
        if code is None:
            kill(process, with_runs=draws.random() < 0.5)
            counts["kills"] += 1
        now = finished("killed")
        for path, told in before.items():
            assert now[path] == told, f"{path} had ended, and was run again"
        counts["kept"] += len(before)
        longest *= 1.0 if len(now) > len(before) else 1.2
    assert code == 0, Path("run.log").read_text()[-3000:]


def _require_same() -> None:
    whole = {r.path.relative_to("whole"): r for r in records_below(Path("whole"))}
    for path, record in whole.items():
        other = Record(Path("killed") / path)
        assert other.status == "finished"
        found = difference(outcome(record.path), outcome(other.path))
        assert found is None, f"{path} differs at {found}"
        assert (other.path / "MODEL_CARD.md").is_file()


if __name__ == "__main__":
    from tests.end_to_end.conftest import write_config

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_config(Path(folder))
        path = write_grid(Path(folder), variants=6, seeds=3)
        print(campaign(Path(folder), path, int(sys.argv[1]), seed=0))
