"""Quantization within a run: what training saw is what the run opens as, and what lies on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from gpt4o_lit.interop.run import open_run
from gpt4o_lit.model.quantized import formats_of
from tests.end_to_end.conftest import give, kill_and_resume, load, weights
from tests.end_to_end.test_fit import DROPOUT, assert_equal, fit, fit_on_two

INT4 = {"format": {"bits": 4, "group_size": 32}}
INT8 = {"format": {"bits": 8, "rounds_inputs": True}}
QAT, PTQ = "QuantizationAwareTraining", "PostTrainingQuantization"

Overlay = Callable[..., str]


@pytest.fixture
def overlay(home: Path) -> Overlay:
    """A file that adds a callback with these settings, and others."""

    def write(*others: dict[str, Any], name: str = QAT, **settings: Any) -> str:
        settings = {"formats": INT4} | settings
        callback = {"class_path": f"gpt4o_lit.callbacks.{name}", "init_args": settings}
        path = home / "quantize.yaml"
        values = {"trainer": {"callbacks+": [callback, *others]}}
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return str(path)

    return write


def logits(run: Path) -> Tensor:
    """Of what a directory opens as."""
    net = open_run(run, "last").transformer
    assert formats_of(net)
    both = net.encoder is not None and net.decoder is not None
    tokens = torch.arange(24).view(1, -1)
    with torch.no_grad():
        return net(tokens, source_BS=tokens) if both else net(tokens)  # type: ignore[no-any-return]


def val_loss(run: Path) -> float:
    return float(read_metrics(run / "metrics.csv")[-1]["val/loss"])


@pytest.mark.parametrize(
    ("settings", "stacks", "objective", "flags"),
    [
        ({}, ["decoder"], "CausalLM", []),
        ({"formats": INT8, "freeze": 4}, ["encoder"], "MaskedLM", ["--config", "with/bf16"]),
        ({"learned_scales": True, "start": 2}, ["encoder", "decoder"], "SpanCorruption", []),
        pytest.param(
            {"learned_scales": True, "start": 2, "freeze": 4},
            ["decoder"],
            "CausalLM",
            ["--config", "with/compile"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_training_saw_is_what_is_measured_opened_and_stored(
    settings: dict[str, Any],
    stacks: list[str],
    objective: str,
    flags: list[str],
    config: Path,
    overlay: Overlay,
) -> None:
    if stacks != ["decoder"]:
        give(config, stacks, objective)
    run = fit(config, "run", "--config", overlay(**settings), *flags)
    assert main(["validate", "--resume", str(run), "--run_dir", "again"]) == 0
    assert val_loss(Path("again")) == pytest.approx(val_loss(run), abs=1e-6)
    exact = weights(run)
    learned = [name for name in exact if name.endswith("fake.log_scales")]
    assert bool(learned) == bool(settings.get("learned_scales") or settings.get("freeze"))
    assert torch.equal(logits(run), logits(run / "compressed"))
    sizes = [(run / name).stat().st_size for name in ("compressed/model.safetensors",)]
    assert sizes[0] < 0.5 * sum(weight.nbytes for weight in exact.values())


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_bit_by_bit(config: Path, overlay: Overlay) -> None:
    flags = ("--config", overlay(start=2, freeze=5), "--trainer.max_steps", "8")
    flags += ("--checkpoint.every_n_train_steps", "1")
    whole = fit(config, "whole", *flags)
    kill_and_resume(config, flags, rows=3)
    assert_equal(weights(whole), weights(Path("run")), atol=0)
    assert torch.equal(logits(whole), logits(Path("run")))


@pytest.mark.slow
@pytest.mark.parametrize("learned", [False, True])
def test_two_processes_train_as_one_does(config: Path, overlay: Overlay, learned: bool) -> None:
    flags = ["--config", overlay(learned_scales=learned), DROPOUT, "0", "--trainer.max_steps", "3"]
    alone = fit(config, "alone", *flags)
    half = "--data.init_args.batch_size=2"
    fit_on_two("--config", str(config), "--run_dir", "together", *flags, half)
    assert_equal(weights(alone), weights(Path("together")), atol=1e-4)


@pytest.mark.slow
def test_a_callback_that_is_off_changes_nothing(config: Path, overlay: Overlay) -> None:
    plain = fit(config, "plain")
    off = fit(config, "off", "--config", overlay(enabled=False))
    assert_equal(weights(plain), weights(off), atol=0)
    assert not (off / "compressed").exists()


def test_every_recipe_makes_a_directory_that_verbs_open(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(config, "run")
    sizes = {}
    for recipe in ("int8_smooth", "int4", "int4_awq"):
        assert main(["compress", str(run), "--recipe", recipe, "--out", recipe]) == 0
        told = capsys.readouterr().out
        assert "in float32" in told
        assert "writing: " in told
        assert val_loss(Path(recipe)) == pytest.approx(val_loss(run), rel=0.1)
        assert main(["generate", recipe, "--prompt", "the cat", "--max_new_tokens", "4"]) == 0
        sizes[recipe] = Path(recipe, "model.safetensors").stat().st_size
    assert sizes["int4"] < 0.7 * sizes["int8_smooth"]
    assert main(["compress", "int4", "--recipe", "int8"]) == 2
    assert "compressed already" in capsys.readouterr().err


def test_cut_heal_and_quantize_are_one_run(config: Path, overlay: Overlay) -> None:
    parent = fit(config, "parent")
    cut = {"cut": {"channels": 0.5}, "num_batches": 2}
    others = [
        {"class_path": "gpt4o_lit.callbacks.StructuredPruning", "init_args": cut},
        {"class_path": "gpt4o_lit.callbacks.Distillation"},
    ]
    flags = ["--from", str(parent), "--config", overlay(*others, start=3), "--run_dir", "run"]
    assert main(["fit", *flags]) == 0
    dense, small = open_run(parent).transformer, open_run("run/compressed").transformer
    assert dense.config.decoder.ffn_dim > small.config.decoder.ffn_dim  # type: ignore[union-attr]
    assert len(formats_of(small)) == 9
    assert torch.equal(logits(Path("run")), logits(Path("run/compressed")))
    learned = overlay(*others, learned_scales=True)
    assert main(["fit", "--from", str(parent), "--config", learned]) == 2


def test_a_run_may_be_quantized_at_its_end(config: Path, overlay: Overlay) -> None:
    run = fit(config, "run", "--config", overlay(name=PTQ, method="gptq", num_batches=2))
    assert not formats_of(open_run(run).transformer)
    assert formats_of(open_run(run / "compressed").transformer)


def test_what_makes_no_sense_is_refused(
    config: Path, overlay: Overlay, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(config, "run", "--config", overlay(), "--trainer.max_steps", "3")
    last = str(run / "checkpoints/last.ckpt")
    capsys.readouterr()
    assert main(["fit", "--config", str(config), "--ckpt_path", last]) == 2
    assert "tokens was trained as if it had 4 bits, but nothing" in capsys.readouterr().err
    both = {"class_path": f"gpt4o_lit.callbacks.{PTQ}"}
    for others, settings, message in (
        ([], {"formats": {"format": {"bits": 4, "group_size": 64}}}, "its 32 inputs"),
        ([], {"formats": {"format": {"bits": 4}}}, "has no kernel; set group_size"),
        ([], {"start": 9}, "start (step 9) must come before the run's end"),
        ([], {"start": 4, "freeze": 3}, "freeze (3.0) must not be before start (4.0)"),
        ([], {"name": PTQ, "method": "awq", "num_batches": 999}, "num_batches (999)"),
        ([both], {}, "take PostTrainingQuantization out"),
    ):
        assert main(["fit", "--config", str(config), "--config", overlay(*others, **settings)]) == 2
        assert message in capsys.readouterr().err
    assert load(run, "last")["trained_as"]["tokens"]["bits"] == 4
