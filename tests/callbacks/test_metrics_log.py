"""metrics.csv has one row a step, and keeps its past when a run goes on."""

from pathlib import Path

import pytest

from gpt4o_lit.callbacks import MetricsLog
from gpt4o_lit.callbacks.metrics_log import read_metrics
from tests.callbacks.test_checkpoint_files import files_end_at


def test_metrics_of_one_step_share_a_row(tmp_path: Path) -> None:
    log = MetricsLog(str(tmp_path))
    log.log_metrics({"train/loss": 2.0, "epoch": 0}, 10)
    log.log_metrics({"val/loss": 3.0}, 10)
    log.finalize("success")
    assert read_metrics(log.path) == [
        {"step": 10, "epoch": 0.0, "train/loss": 2.0, "val/loss": 3.0}
    ]


def test_a_run_that_goes_on_keeps_the_rows_before_it(tmp_path: Path) -> None:
    first = MetricsLog(str(tmp_path))
    for step in (1, 2, 3):
        first.log_metrics({"train/loss": float(step)}, step)
    first.finalize("failed")
    second = MetricsLog(str(tmp_path))
    second.log_metrics({"train/loss": 30.0}, 3)
    second.finalize("success")
    assert [row["train/loss"] for row in read_metrics(second.path)] == [1.0, 2.0, 30.0]


def test_a_run_that_goes_on_keeps_what_was_logged_of_its_last_step(tmp_path: Path) -> None:
    """It validates behind it, where it was stopped in its validation."""
    first = MetricsLog(str(tmp_path))
    first.log_metrics({"train/loss": 2.0}, 2)
    first.log_metrics({"train/loss": 3.0}, 3)
    first.finalize("failed")
    second = MetricsLog(str(tmp_path))
    second.go_on_from(3)
    second.log_metrics({"val/loss": 4.0}, 2)
    second.finalize("success")
    assert read_metrics(second.path) == [{"step": 2, "train/loss": 2.0, "val/loss": 4.0}]


def test_rows_wait_while_the_disk_is_full(tmp_path: Path) -> None:
    log = MetricsLog(str(tmp_path))
    with files_end_at(10):
        for step in range(19):
            log.log_metrics({"train/loss": 1.0}, step)
        with pytest.warns(UserWarning, match=r"metrics\.csv was not written .* wait in memory"):
            log.log_metrics({"train/loss": 1.0}, 19)
        with pytest.raises(OSError, match="File too large"):
            log.finalize("success")
    log.log_metrics({"train/loss": 1.0}, 20)
    assert [row["step"] for row in read_metrics(log.path)] == list(range(21))
