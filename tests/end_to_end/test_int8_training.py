"""Runs that multiply whole numbers: near those of floats, and bit-equal where they are killed."""

from pathlib import Path

import pytest
import torch
import yaml

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from gpt4o_lit.interop.run import open_run
from tests.end_to_end.conftest import give, kill_and_resume, weights
from tests.end_to_end.test_fit import DROPOUT, assert_equal, fit, fit_on_two

OVERLAY = ("--config", "with/int8_training")
BF16 = ("--config", "with/bf16")


def val_loss(run: Path) -> float:
    return float(read_metrics(run / "metrics.csv")[-1]["val/loss"])


@pytest.mark.parametrize(
    ("stacks", "objective", "flags"),
    [
        (["decoder"], "CausalLM", []),
        (["encoder", "decoder"], "SpanCorruption", ["--trainer.precision", "32-true"]),
        pytest.param(["encoder"], "MaskedLM", [], marks=pytest.mark.slow),
        pytest.param(["decoder"], "CausalLM", ["--config", "with/compile"],
                     marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_it_learns_what_floats_learn(
    config: Path, stacks: list[str], objective: str, flags: list[str]
) -> None:
    if stacks != ["decoder"]:
        give(config, stacks, objective)
    exact, rounded = fit(config, "exact", *BF16, *flags), fit(config, "run", *OVERLAY, *flags)
    assert val_loss(rounded) == pytest.approx(val_loss(exact), rel=0.01)
    apart = {name: not torch.equal(weight, weights(exact)[name])
             for name, weight in weights(rounded).items()}  # fmt: skip
    assert any(apart.values())
    assert main(["validate", "--resume", "run", "--run_dir", "again"]) == 0
    assert val_loss(Path("again")) == pytest.approx(val_loss(rounded), abs=1e-6)
    assert open_run(rounded).transformer.state_dict().keys() == {
        name.removeprefix("transformer.") for name in weights(rounded)
    }


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_bit_by_bit(config: Path) -> None:
    flags = (*OVERLAY, "--trainer.max_steps", "8", "--checkpoint.every_n_train_steps", "1")
    whole = fit(config, "whole", *flags)
    kill_and_resume(config, flags, rows=3)
    assert_equal(weights(whole), weights(Path("run")), atol=0)


@pytest.mark.slow
def test_two_processes_train_as_one_does(config: Path) -> None:
    flags = [*OVERLAY, DROPOUT, "0", "--trainer.max_steps", "3", "--trainer.precision", "32-true"]
    alone = fit(config, "alone", *flags)
    half = "--data.init_args.batch_size=2"
    fit_on_two("--config", str(config), "--run_dir", "together", *flags, half)
    assert_equal(weights(alone), weights(Path("together")), atol=1e-3)


def test_what_rounds_already_is_refused_in_one_line(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, settings, message in (
        ("QuantizationAwareTraining", {}, "rounds what Int8Training would round; take one of them"),
        ("LoRA", {"quantize": {"bits": 8}}, "leave LoRA's quantize out, or take Int8Training out"),
    ):
        callback = {"class_path": f"gpt4o_lit.callbacks.{name}", "init_args": settings}
        Path("with.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [callback]}}))
        flags = (*OVERLAY, "--config", "with.yaml", "--run_dir", name)
        assert main(["fit", "--config", str(config), *flags]) == 2
        assert message in capsys.readouterr().err.strip().splitlines()[-1]
