"""Sweeps: trials are ordinary runs, ASHA stops most of them, and a journal outlives a kill."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpt4o_lit.experiments.record import Record, records_below
from gpt4o_lit.experiments.sweep import open_study
from gpt4o_lit.experiments.sweep_file import read_sweep
from tests.end_to_end.ablation_survival import finished, forked
from tests.end_to_end.survival import LONGEST, ended

RATE = "model.init_args.optimizer.init_args.lr"
DIM = "model.init_args.transformer.decoder.dim"


def write(home: Path, **values: Any) -> Path:
    given = {
        "base": "tiny.yaml",
        "flags": {"model_card.measure": False, "samples.enabled": False},
        "search": {RATE: {"low": 1e-4, "high": 1e-1, "log": True}},
    }
    path = home / "mine.yaml"
    path.write_text(yaml.safe_dump(given | values, sort_keys=False), encoding="utf-8")
    return path


def sweep(file: Path) -> int:
    return forked("sweep", str(file), "--dir", "sweep", "--threads", "1")


def states(file: Path) -> list[str]:
    return [trial.state.name for trial in open_study(read_sweep(file), Path("sweep")).trials]


def test_a_sweep_is_told_of_failures_and_goes_on_with_more_trials(home: Path, config: Path) -> None:
    file = write(home, trials=2, search={DIM: [32, 33]}, sampler="random")
    limit = time.monotonic() + 5 * LONGEST
    code = ended(sweep(file), limit)
    told = Path("run.log").read_text(encoding="utf-8")
    assert code == 0, told
    found = states(file)
    assert sorted(set(found)) == ["COMPLETE", "FAIL"]  # 33 is no multiple of two heads
    assert "num_heads" in told
    before = finished("sweep")
    assert len(before) == found.count("COMPLETE")
    file = write(home, trials=3, search={DIM: [32, 33]}, sampler="random")
    assert ended(sweep(file), limit) == 0
    assert len(states(file)) == 3
    assert before.items() <= finished("sweep").items()


@pytest.mark.slow
def test_asha_stops_most_trials_and_a_killed_sweep_goes_on(home: Path, config: Path) -> None:
    flags = {"model_card.measure": False, "samples.enabled": False, "trainer.max_steps": 27}
    file = write(home, trials=8, flags=flags, asha={"first": 3, "factor": 3})
    process, limit = sweep(file), time.monotonic() + 10 * LONGEST
    while len(finished("sweep")) < 1:
        assert ended(process, time.monotonic() + 0.1) is None
        assert time.monotonic() < limit
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    before = finished("sweep")
    assert ended(sweep(file), limit) == 0, Path("run.log").read_text(encoding="utf-8")
    found = states(file)
    assert len(found) == 8
    assert set(found) == {"COMPLETE", "PRUNED"}
    assert before.items() <= finished("sweep").items()
    for place, state in enumerate(found):
        record = Record(Path(f"sweep/trial_{place:04d}/seed_0"))
        assert record.status == {"COMPLETE": "finished", "PRUNED": "stopped"}[state]
    assert len(list(records_below(Path("sweep")))) == 8
