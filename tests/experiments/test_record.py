"""What a run directory tells of its run."""

import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from gpt4o_lit.callbacks.manifest import this_process
from gpt4o_lit.experiments.record import Record, records_below


def record(run: Path, manifest: dict[str, Any], metrics: str = "") -> Record:
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(
        "trainer: {max_steps: 9}\ncheckpoint: {monitor: val/loss, mode: min}\n", encoding="utf-8"
    )
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    if metrics:
        (run / "metrics.csv").write_text(metrics, encoding="utf-8")
    return Record(run)


def gone() -> dict[str, Any]:
    """A process that has ended."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    told = {"host": this_process()["host"], "id": pid, "begun": psutil.Process(pid).create_time()}
    os.waitpid(pid, 0)
    return told


@pytest.mark.parametrize(
    ("manifest", "status"),
    [
        ({"process": this_process()}, "running"),
        ({"process": this_process(), "ended": "2026-01-01T00:00:00+00:00"}, "running"),
        ({"process": this_process() | {"begun": 1.0}}, "stopped"),  # the number is another's now
        ({"process": gone()}, "stopped"),
        ({"process": {"host": "elsewhere", "id": 1, "begun": 1.0}}, "running"),
        ({"stopped": "2026-01-01T00:00:00+00:00"}, "stopped"),
        ({"stopped": "2026-01-01T00:00:00+00:00", "error": "ValueError: no"}, "failed"),
        ({"ended": "2026-01-01T00:00:00+00:00"}, "finished"),
        ({"imported_from": "there"}, "imported"),
        ({}, "stopped"),
    ],
)
def test_the_status_of_a_run(manifest: dict[str, Any], status: str, tmp_path: Path) -> None:
    assert record(tmp_path / "run", manifest).status == status


def test_a_run_of_another_machine_that_writes_nothing_any_more_was_killed(tmp_path: Path) -> None:
    found = record(tmp_path / "run", {"process": {"host": "elsewhere", "id": 1, "begun": 1.0}})
    for file in found.path.iterdir():
        os.utime(file, (1, 1))
    assert found.status == "stopped"


def test_best_last_and_speed_are_read_from_the_metrics(tmp_path: Path) -> None:
    rows = "step,epoch,val/loss,perf/tokens_per_second\n2,0,3.5,10\n5,0,2.5,30\n8,0,nan,20\n"
    found = record(tmp_path / "run", {}, rows)
    assert found.best("val/loss", "min") == (2.5, 6)
    assert found.best("val/loss", "max") == (3.5, 3)
    assert found.best("val/accuracy", "max") is None
    assert found.speed == 20
    assert (found.step, found.steps) == (9, 9)


def test_folders_within_a_run_are_no_runs(tmp_path: Path) -> None:
    record(tmp_path / ".probe_1" / "run", {})
    for name in ("a/one", "b"):
        record(tmp_path / name, {})
        (tmp_path / name / "checkpoints").mkdir()
        (tmp_path / name / "checkpoints" / "config.yaml").touch()
    assert [each.path for each in records_below(tmp_path)] == [tmp_path / "a/one", tmp_path / "b"]
    with pytest.raises(FileNotFoundError, match="is no folder"):
        list(records_below(tmp_path / "none"))
