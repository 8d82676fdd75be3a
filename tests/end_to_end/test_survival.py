"""A run that is killed, stopped or out of room loses the steps since its last save, no others."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from gpt4o_lit.interop.checkpoints import give_name, step_file
from gpt4o_lit.run_directory import kept_steps
from tests.callbacks.test_checkpoint_files import files_end_at
from tests.end_to_end.conftest import load, weights
from tests.end_to_end.survival import (
    FLAGS,
    LONGEST,
    campaign,
    damages,
    difference,
    ended,
    full_disks,
    outcome,
    start,
)
from tests.end_to_end.test_fit import assert_equal, fit


def test_a_run_that_is_killed_equals_one_that_never_was(home: Path, config: Path) -> None:
    flags = (*FLAGS, "--trainer.max_steps", "14", "--samples.enabled", "false")
    counts = campaign(home, config, 2, seed=0, flags=flags)
    assert counts["save"] + counts["step"] >= 2
    assert counts["runs"] >= 1


@pytest.mark.slow
def test_runs_that_are_killed_200_times_equal_one_that_never_was(home: Path, config: Path) -> None:
    counts = campaign(home, config, 200, seed=1)
    assert counts["save"] + counts["step"] >= 200
    assert counts["save"] >= 200 // 3


@pytest.mark.slow
def test_50_full_disks_cost_no_more_than_the_steps_since_the_last_save(
    home: Path, config: Path
) -> None:
    counts = full_disks(home, config, 50, seed=1)
    assert counts["failed"] >= 50
    assert counts["saved steps"] > 0


@pytest.mark.slow
def test_50_damaged_checkpoints_are_refused_and_gone_back_behind(home: Path, config: Path) -> None:
    counts = damages(home, config, 50, seed=1)
    assert sum(counts.values()) == 50
    assert min(counts.values()) > 0  # bits were flipped, and files cut off


@pytest.mark.parametrize(
    "step", [10, *(pytest.param(step, marks=pytest.mark.slow) for step in (9, 13, 17, 20))]
)
def test_a_run_goes_on_from_any_of_its_steps(step: int, config: Path) -> None:
    """10 and 20 end an epoch, in the middle of 14 and 18 there is a validation."""
    steps = ("--trainer.max_steps", "22", "--checkpoint.keep_last", "99")
    flags = (*FLAGS, *steps, "--checkpoint.every_n_train_steps", "1")
    fit(config, "run", *flags)
    expected = outcome(Path("run"))
    folder = Path("run/checkpoints")
    for later in kept_steps(folder):
        if later > step:
            step_file(folder, later).unlink()
    give_name(step_file(folder, step), folder / "last.ckpt")
    assert main(["fit", "--resume", "run"]) == 0
    assert difference(expected, outcome(Path("run"))) is None


def test_a_damaged_or_foreign_checkpoint_is_one_line_and_one_can_go_back(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(config, "run")
    expected, last = weights(run), run / "checkpoints" / "last.ckpt"
    whole = last.read_bytes()
    last.write_bytes(whole[:1000] + b"!" + whole[1001:])
    capsys.readouterr()
    assert main(["fit", "--resume", "run"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert "last.ckpt is damaged" in line
    assert "--resume_from previous" in line
    assert main(["fit", "--resume", "run", "--resume_from", "previous"]) == 0
    assert "going on from run/checkpoints/step_3.ckpt" in capsys.readouterr().err
    assert_equal(expected, weights(run), atol=0)
    size = "--model.init_args.transformer.decoder.dim=48"
    assert main(["fit", "--resume", "run", size]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "last.ckpt is of another network: tokens.weight is (" in error


def test_a_run_without_room_trains_on_and_says_at_its_end_what_is_safe(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = fit(config, "whole", "--trainer.max_steps", "9")
    run = fit(config, "run", "--trainer.max_steps", "3")
    with files_end_at(300_000):
        assert main(["fit", "--resume", "run", "--trainer.max_steps", "9"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "step 9 was not saved" in error
    assert "File too large" in error
    assert read_metrics(run / "metrics.csv")[-1]["step"] == 8  # step 6 was no end
    assert load(run, "last")["global_step"] == load(run, "best")["global_step"] == 3
    assert not list(run.rglob("*.part"))
    assert main(["fit", "--resume", "run", "--trainer.max_steps", "9"]) == 0
    assert_equal(weights(whole), weights(run), atol=0)


def test_a_run_that_may_not_lose_a_save_stops_at_it(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with files_end_at(300_000):
        flags = ("--checkpoint.on_save_error", "raise")
        assert main(["fit", "--config", str(config), "--run_dir", "run", *flags]) == 2
    assert "step 3 was not saved" in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_run_that_has_ended_goes_on_as_if_it_had_not(config: Path) -> None:
    """4 is a step that is validated because it is the last, and for nothing else."""
    longer = ("--samples.enabled", "false", "--trainer.max_steps", "8")
    expected = read_metrics(fit(config, "whole", *longer) / "metrics.csv")
    run = fit(config, "run", *longer, "--trainer.max_steps", "4")
    assert main(["fit", "--resume", "run", "--trainer.max_steps", "8"]) == 0
    found = read_metrics(run / "metrics.csv")
    losses = [[(row["step"], row["train/loss"]) for row in rows] for rows in (found, expected)]
    assert losses[0] == losses[1]
    assert "val/loss" in found[3]
    assert "val/loss" not in expected[3]


def test_a_metric_that_is_not_logged_is_named_and_costs_nothing(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--samples.enabled", "false", "--checkpoint.monitor", "val/los"]
    assert main(["fit", "--config", str(config), "--run_dir", "run", *flags]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "checkpoint.monitor (val/los) is not logged; did you mean 'val/loss'?" in line
    assert load(Path("run"), "last")["global_step"] == 3
    assert main(["fit", "--resume", "run", "--checkpoint.monitor", "val/loss"]) == 0
    assert load(Path("run"), "best")["global_step"] == 6


STOPPING = """
import os, signal
from lightning import Callback

class StopsInAValidation(Callback):
    def __init__(self, step: int):
        self.step = step

    def on_validation_batch_start(self, trainer, *args):
        if trainer.global_step == self.step and not os.path.exists("stopped"):
            open("stopped", "w").close()
            os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.parametrize("step", [3, 6])
def test_a_run_that_is_stopped_in_a_validation_ends_it(step: int, config: Path) -> None:
    """6 is the last."""
    Path("stopping.py").write_text(STOPPING, encoding="utf-8")
    flags = ["--trainer.callbacks+=stopping.StopsInAValidation", "--run_dir", "run"]
    flags.insert(1, f"--trainer.callbacks.step={step}")
    process = start("fit", "--config", str(config), *flags)
    assert ended(process, time.monotonic() + LONGEST) == 128 + signal.SIGTERM
    assert "stopped" in json.loads(Path("run/manifest.json").read_text())
    assert ended(start("fit", "--resume", "run"), time.monotonic() + LONGEST) == 0
    found = outcome(Path("run"))
    assert "val/loss" in Path("run/MODEL_CARD.md").read_text()
    shutil.rmtree("run")  # the second time nothing stops it
    assert ended(start("fit", "--config", str(config), *flags), time.monotonic() + LONGEST) == 0
    assert difference(outcome(Path("run")), found) is None
    manifest = json.loads(Path("run/manifest.json").read_text())
    assert manifest["metrics"]["val/loss"] == read_metrics(Path("run/metrics.csv"))[-1]["val/loss"]
    assert "process" not in manifest


@pytest.mark.slow
def test_an_asynchronous_run_saves_the_same(config: Path) -> None:
    plain = outcome(fit(config, "run", *FLAGS))
    shutil.rmtree("run")
    assert (
        difference(plain, outcome(fit(config, "run", *FLAGS, "--checkpoint.asynchronous=true")))
        is None
    )


@pytest.mark.slow
@pytest.mark.parametrize("rest", [0.0, 0.004, 0.008, 0.012, 0.016])
def test_a_run_that_is_stopped_anywhere_goes_on_exactly(rest: float, config: Path) -> None:
    """Each row of the log is a step, and behind it come windows, validations and saves."""
    fit(config, "run", *FLAGS)
    expected = outcome(Path("run"))
    shutil.rmtree("run")
    process = start("fit", "--config", str(config), "--run_dir", "run", *FLAGS)
    while not Path("run/checkpoints/last.ckpt").exists():
        assert ended(process, time.monotonic() + 0.001) is None
    time.sleep(rest * 20)
    os.kill(process, signal.SIGTERM)
    assert ended(process, time.monotonic() + 30) == 128 + signal.SIGTERM
    assert main(["fit", "--resume", "run"]) == 0
    assert difference(expected, outcome(Path("run"))) is None


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_two_processes_that_are_stopped_go_on_exactly(sign: signal.Signals, config: Path) -> None:
    command = [sys.executable, "-m", "gpt4o_lit", "fit"]
    flags = [*FLAGS, "--config", "with/ddp"]
    flags += ["--trainer.devices", "2", "--data.init_args.batch_size", "8"]
    flags += ["--model.init_args.optimizer", "gpt4o_lit.optim.AdamW"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def begin(*arguments: str) -> subprocess.Popen[bytes]:
        given = [*command, *arguments, *flags]
        return subprocess.Popen(given, env=environment, start_new_session=True)

    assert begin("--config", str(config), "--run_dir", "run").wait(timeout=120) == 0
    expected = outcome(Path("run"))
    shutil.rmtree("run")
    process = begin("--config", str(config), "--run_dir", "run")
    while not Path("run/checkpoints/last.ckpt").exists():
        assert process.poll() is None
        time.sleep(0.001)
    if sign == signal.SIGTERM:
        process.send_signal(sign)
        assert process.wait(timeout=30) == 128 + sign
    else:
        os.killpg(process.pid, sign)
        process.wait(timeout=30)
    assert load(Path("run"), "last")["global_step"] < 40
    assert begin("--resume", "run").wait(timeout=120) == 0
    assert difference(expected, outcome(Path("run"))) is None
