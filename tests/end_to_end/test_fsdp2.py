"""A network in parts over two processes learns, is saved and goes on as a whole one does."""

import subprocess
import sys
from pathlib import Path

import pytest

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from tests.end_to_end.conftest import give, weights
from tests.end_to_end.test_fit import (
    DROPOUT,
    assert_equal,
    assert_same_losses,
    fit,
    fit_on,
    fit_on_two,
)

ALONE = ("--trainer.strategy", "auto", "--trainer.devices", "1")
HALF = ("--data.init_args.batch_size", "2")
TWENTY = ("--trainer.max_steps", "20", "--trainer.val_check_interval", "20")


def on_two(config: Path, run: str, *flags: str) -> Path:
    fit_on_two("--config", str(config), "--run_dir", run, *HALF, *flags, strategy="with/fsdp2")
    return Path(run)


@pytest.mark.slow
def test_parts_learn_as_the_whole_does(config: Path) -> None:
    flags = (DROPOUT, "0", "--trainer.max_steps", "4", "--trainer.val_check_interval", "2")
    flags += ("--trainer.gradient_clip_val", "0.1")  # less than the norm is
    alone, together = fit(config, "alone", *flags), on_two(config, "together", *flags)
    assert_equal(weights(alone), weights(together), atol=1e-5)
    assert_same_losses(alone, together)
    ours, theirs = (read_metrics(run / "metrics.csv") for run in (alone, together))
    for name in ("val/loss", "train/grad_norm"):
        assert ours[-1][name] == pytest.approx(theirs[-1][name], abs=1e-5)
    assert (together / "samples.md").read_text() == (alone / "samples.md").read_text()
    assert main(["generate", str(together), "--prompt", "the ", "--max_new_tokens", "2"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stacks", "objective"),
    [(["encoder"], "MaskedLM"), (["encoder", "decoder"], "SpanCorruption")],
)
def test_every_kind_of_network_is_sharded(stacks: list[str], objective: str, config: Path) -> None:
    give(config, stacks, objective)
    flags = [f"--model.init_args.transformer.{stack}.dropout=0" for stack in stacks]
    alone, run = fit(config, "alone", *flags, *TWENTY), on_two(config, "run", *flags, *TWENTY)
    assert_equal(weights(alone), weights(run), atol=1e-4)  # as near as Adam's division leaves
    assert_same_losses(alone, run)
    ours, theirs = (read_metrics(each / "metrics.csv")[-1] for each in (alone, run))
    assert ours["val/loss"] == pytest.approx(theirs["val/loss"], abs=1e-5)
    assert main(["test", "--resume", str(run), *ALONE]) == 0


@pytest.mark.slow
def test_two_groups_of_two_learn_as_the_whole_does(config: Path) -> None:
    flags = (DROPOUT, "0", "--trainer.gradient_clip_val", "0.1")
    alone = fit(config, "alone", *flags)
    quarter = ("--data.init_args.batch_size", "1", "--trainer.devices", "4")
    given = ("--config", str(config), "--config", "with/hsdp", "--run_dir", "run", *flags)
    fit_on(*given, *quarter)
    assert_equal(weights(alone), weights(Path("run")), atol=1e-5)
    assert_same_losses(alone, Path("run"))
    ours, theirs = (read_metrics(Path(r) / "metrics.csv")[-1] for r in ("alone", "run"))
    assert ours["train/grad_norm"] == pytest.approx(theirs["train/grad_norm"], abs=1e-5)


@pytest.mark.slow
def test_groups_are_of_one_size(config: Path) -> None:
    error = refusal(config, "--config", "with/hsdp", "--trainer.devices", "3")
    assert "replicas (2) must divide the number of processes (3)" in error


@pytest.mark.slow
@pytest.mark.parametrize("first", ["parts", "whole"])
def test_a_run_goes_on_under_another_strategy(first: str, config: Path) -> None:
    still = (DROPOUT, "0")
    whole = fit(config, "all", *still)
    stopped = (*still, "--trainer.max_steps", "3")
    if first == "parts":
        run = on_two(config, "run", *stopped)
        again = ("--data.init_args.batch_size", "4", "--trainer.max_steps", "6")
        assert main(["fit", "--resume", str(run), *ALONE, *again]) == 0
    else:
        run = fit(config, "run", *stopped)
        again = ("--resume", str(run), *HALF, "--trainer.max_steps", "6")
        fit_on_two(*again, strategy="with/fsdp2")
    assert_equal(weights(whole), weights(run), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("callback", [None, "MagnitudePruning"])
def test_what_needs_whole_weights_is_refused(callback: str | None, config: Path) -> None:
    if callback is None:
        flags, name = ["--model.init_args.optimizer", "gpt4o_lit.optim.Muon"], "Muon"
    else:
        flags, name = ["--config", "with/prune_magnitude"], callback
    error = refusal(config, *flags, "--config", "with/fsdp2", "--trainer.devices", "2")
    assert f"{name} needs weights that are whole, and FSDP2 holds parts of them" in error


def refusal(config: Path, *flags: str) -> str:
    """What a run says that ends before its processes meet."""
    command = [sys.executable, "-m", "gpt4o_lit", "fit", "--config", str(config), *flags]
    command += ["--run_dir", "run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "Initializing distributed" not in done.stderr
    return done.stderr
