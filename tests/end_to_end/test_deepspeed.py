"""Under DeepSpeed's ZeRO on two processes a network learns, is saved and goes on as alone."""

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
    fit_on_two,
)
from tests.end_to_end.test_fsdp2 import ALONE, HALF, TWENTY

pytestmark = pytest.mark.slow  # each start takes DeepSpeed ten seconds
STAGES = ("deepspeed_zero1", "deepspeed_zero2", "deepspeed_zero3", "deepspeed_zero3_offload")


def on_two(config: Path, run: str, stage: str, *flags: str) -> Path:
    given = ("--config", str(config), "--run_dir", run, *HALF, *flags)
    fit_on_two(*given, strategy=f"with/{stage}")
    return Path(run)


@pytest.mark.parametrize("stage", STAGES)
def test_parts_learn_as_the_whole_does(stage: str, config: Path) -> None:
    flags = (DROPOUT, "0", "--trainer.max_steps", "4", "--trainer.val_check_interval", "4")
    flags += ("--trainer.gradient_clip_val", "0.1")  # less than the norm is
    flags += ("--trainer.accumulate_grad_batches", "2")
    alone, together = fit(config, "alone", *flags), on_two(config, "together", stage, *flags)
    assert_equal(weights(alone), weights(together), atol=1e-5)
    assert_same_losses(alone, together)
    ours, theirs = (read_metrics(run / "metrics.csv") for run in (alone, together))
    for name in ("val/loss", "train/grad_norm"):
        assert ours[-1][name] == pytest.approx(theirs[-1][name], abs=1e-5)
    assert (together / "samples.md").read_text() == (alone / "samples.md").read_text()
    assert main(["generate", str(together), "--prompt", "the ", "--max_new_tokens", "2"]) == 0


@pytest.mark.parametrize("first", ["parts", "whole"])
@pytest.mark.parametrize("stage", ["deepspeed_zero2", "deepspeed_zero3"])
def test_a_run_goes_on_under_another_strategy(stage: str, first: str, config: Path) -> None:
    still = (DROPOUT, "0")
    whole = fit(config, "all", *still)
    stopped = (*still, "--trainer.max_steps", "3")
    if first == "parts":
        run = on_two(config, "run", stage, *stopped)
        again = ("--data.init_args.batch_size", "4", "--trainer.max_steps", "6")
        assert main(["fit", "--resume", str(run), *ALONE, *again]) == 0
    else:
        run = fit(config, "run", *stopped)
        again = ("--resume", str(run), *HALF, "--trainer.max_steps", "6")
        fit_on_two(*again, strategy=f"with/{stage}")
    assert_equal(weights(whole), weights(run), atol=1e-5)


@pytest.mark.parametrize(
    ("stacks", "objective"),
    [(["encoder"], "MaskedLM"), (["encoder", "decoder"], "SpanCorruption")],
)
@pytest.mark.parametrize("stage", ["deepspeed_zero2", "deepspeed_zero3"])
def test_every_kind_of_network_is_sharded(
    stage: str, stacks: list[str], objective: str, config: Path
) -> None:
    give(config, stacks, objective)
    flags = [f"--model.init_args.transformer.{stack}.dropout=0" for stack in stacks]
    alone = fit(config, "alone", *flags, *TWENTY)
    run = on_two(config, "run", stage, *flags, *TWENTY)
    assert_equal(weights(alone), weights(run), atol=1e-4)  # as near as Adam's division leaves
    assert_same_losses(alone, run)
    fit_on_two("--resume", str(run), *HALF, strategy=f"with/{stage}")  # nothing is left to do
    ours, theirs = (read_metrics(each / "metrics.csv")[-1] for each in (alone, run))
    assert ours["val/loss"] == pytest.approx(theirs["val/loss"], abs=1e-5)
    assert main(["test", "--resume", str(run), *ALONE]) == 0


def test_what_needs_whole_weights_is_refused(config: Path) -> None:
    flags = ["--config", "with/prune_magnitude", "--config", "with/deepspeed_zero2"]
    command = [sys.executable, "-m", "gpt4o_lit", "fit", "--config", str(config), *flags]
    command += ["--run_dir", "run", "--trainer.devices", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode != 0
    assert "MagnitudePruning needs weights that are whole, and DeepSpeed holds" in done.stderr
    assert "initializing deepspeed distributed" not in done.stderr


def test_a_rounded_network_steps_exact_weights(config: Path) -> None:
    flags = (DROPOUT, "0", "--trainer.max_steps", "3", "--trainer.precision", "bf16-mixed")
    run = on_two(config, "run", "deepspeed_zero2", *flags)
    saved = weights(run)
    assert any(not weight.equal(weight.bfloat16().float()) for weight in saved.values())
    again = ("--resume", str(run), *HALF, "--trainer.max_steps", "6")
    fit_on_two(*again, strategy="with/deepspeed_zero2")
    whole = on_two(config, "whole", "deepspeed_zero2", *flags, "--trainer.max_steps", "6")
    assert_equal(weights(whole), weights(run), atol=1e-5)
