"""Cutting within a run: what is left trains, is saved, resumed, used and exported like any run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from gpt4o_lit.interop.run import open_run
from tests.end_to_end.conftest import give, kill_and_resume, load, weights
from tests.end_to_end.test_fit import DROPOUT, assert_equal, fit, fit_on_two

CUT = {"heads": 0.5, "channels": 0.5, "multiple_of": 8}

Overlay = Callable[..., str]


@pytest.fixture
def overlay(home: Path) -> Overlay:
    """A file that adds the callback with these settings, and others."""

    def write(*others: dict[str, Any], **settings: Any) -> str:
        settings = {"cut": CUT, "at": 2, "num_batches": 2} | settings
        callback = {"class_path": "gpt4o_lit.callbacks.StructuredPruning", "init_args": settings}
        path = home / "cut.yaml"
        values = {"trainer": {"callbacks+": [callback, *others]}}
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return str(path)

    return write


def assert_usable(run: Path) -> int:
    """Its checkpoint is the network that it describes; returns its parameters."""
    network = open_run(run, "last").transformer
    assert network(torch.zeros(1, 4, dtype=torch.long)).isfinite().all()
    return sum(weight.numel() for weight in network.parameters())


def test_a_cut_run_is_smaller_and_used_like_any(
    config: Path, overlay: Overlay, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = fit(config, "plain")
    run = fit(config, "run", "--config", overlay(times=2, every=1))
    dense, small = load(plain, "last"), load(run, "last")
    stack = small["transformer_config"]["decoder"]
    whole = dense["transformer_config"]["decoder"]
    assert stack["attention"]["num_heads"] == whole["attention"]["num_heads"] // 2
    counts = [row["pruning/parameters"] for row in read_metrics(run / "metrics.csv")]
    assert sorted(set(counts), reverse=True) == list(dict.fromkeys(counts))
    assert len(set(counts)) == 3
    assert counts[-1] == assert_usable(run) < assert_usable(plain)
    sizes = [(each / "checkpoints/last.ckpt").stat().st_size for each in (run, plain)]
    assert sizes[0] < sizes[1]
    shapes = {name: weight.shape for name, weight in weights(run).items()}
    for state in small["optimizer_states"][0]["state"].values():
        assert state["exp_avg"].shape in shapes.values()
    capsys.readouterr()
    assert main(["generate", str(run), "--prompt", "a", "--max_new_tokens", "4"]) == 0
    assert main(["export", str(run), "exported", "--format", "hf"]) == 0
    assert main(["validate", "--config", str(run / "config.yaml"), "--ckpt_path",
                 str(run / "checkpoints/last.ckpt")]) == 0  # fmt: skip
    shown = capsys.readouterr().out
    assert "val/loss" in shown


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["Muon", "Adafactor"])
def test_every_way_to_cut_goes_with_bfloat16_and_compilation(
    optimizer: str, config: Path, overlay: Overlay
) -> None:
    cut = CUT | {"width": 0.25, "blocks": 0.5}
    flags = ["--config", "with/bf16", "--config", "with/compile", DROPOUT, "0"]
    flags += ["--model.init_args.optimizer", f"gpt4o_lit.optim.{optimizer}"]
    run = fit(config, "run", "--config", overlay(cut=cut, importance="taylor"), *flags)
    assert_usable(run)
    assert load(run, "last")["transformer_config"]["decoder"]["num_layers"] == 1


@pytest.mark.parametrize("importance", ["activation", "taylor", "reconstruction"])
@pytest.mark.parametrize(
    ("stacks", "objective"),
    [(["encoder"], "MaskedLM"), (["encoder", "decoder"], "SpanCorruption")],
)
def test_encoders_are_cut_too(
    importance: str, stacks: list[str], objective: str, config: Path, overlay: Overlay
) -> None:
    give(config, stacks, objective)
    run = fit(config, "run", "--config", overlay(importance=importance))
    for side in stacks:
        heads = load(run, "last")["transformer_config"][side]["attention"]["num_heads"]
        assert heads == 1


def test_a_callback_that_is_off_changes_nothing(config: Path, overlay: Overlay) -> None:
    plain = fit(config, "plain")
    off = fit(config, "off", "--config", overlay(enabled=False))
    assert_equal(weights(plain), weights(off), atol=0)


def test_micro_batches_cut_as_one_batch_does(config: Path, overlay: Overlay) -> None:
    """They look at a quarter as much text, so at four times as many batches."""
    whole = fit(config, "whole", "--config", overlay(num_batches=1), DROPOUT, "0")
    flags = ("--config", overlay(num_batches=4), DROPOUT, "0")
    flags += ("--data.init_args.batch_size", "1", "--trainer.accumulate_grad_batches", "4")
    parts = fit(config, "parts", *flags, "--trainer.val_check_interval", "12")
    assert_equal(weights(whole), weights(parts), atol=1e-5)


@pytest.mark.slow
def test_two_processes_cut_as_one_does(config: Path, overlay: Overlay) -> None:
    flags = ["--config", overlay(), DROPOUT, "0"]
    alone = fit(config, "alone", *flags)
    half = "--data.init_args.batch_size=2"
    fit_on_two("--config", str(config), "--run_dir", "together", *flags, half)
    assert_equal(weights(alone), weights(Path("together")), atol=1e-5)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_bit_by_bit(config: Path, overlay: Overlay) -> None:
    flags = ("--config", overlay(at=20, times=3, every=40))
    flags += ("--trainer.max_steps", "200", "--trainer.val_check_interval", "25")
    whole = fit(config, "whole", *flags)
    stopped = kill_and_resume(config, flags, rows=80)
    assert 60 < stopped < 200
    assert_equal(weights(whole), weights(Path("run")), atol=0)


def test_a_cut_run_goes_on_without_the_callback(config: Path, overlay: Overlay) -> None:
    run = fit(config, "run", "--config", overlay())
    values = yaml.safe_load((run / "config.yaml").read_text())
    values["trainer"]["callbacks"] = []
    for max_steps in (9, 12):
        values["trainer"]["max_steps"] = max_steps
        (run / "config.yaml").write_text(yaml.safe_dump(values))
        assert main(["fit", "--resume", str(run)]) == 0
        assert load(run, "last")["global_step"] == max_steps
    assert_usable(run)


def test_another_run_goes_on_from_what_is_left(config: Path, overlay: Overlay) -> None:
    run = fit(config, "run", "--config", overlay())
    values = yaml.safe_load(config.read_text())
    values["model"]["init_args"].pop("transformer")
    values["model"]["init_args"]["pretrained"] = str(run)
    config.write_text(yaml.safe_dump(values))
    tokenizer = {"class_path": "gpt4o_lit.tokenizer.LoadTokenizer", "init_args": {"path": str(run)}}
    values["data"]["init_args"]["tokenizer"] = tokenizer
    config.write_text(yaml.safe_dump(values))
    healed = fit(config, "healed")
    assert assert_usable(healed) == assert_usable(run)


AVERAGE = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging"}
MAGNITUDE = {"class_path": "gpt4o_lit.callbacks.MagnitudePruning"}


@pytest.mark.parametrize(
    ("others", "settings", "message"),
    [
        ([], {"cut": {"heads": 1.5}}, "must be at least 0 and below 1"),
        ([], {"cut": {}}, "nothing is cut"),
        ([], {"cut": {"kv_groups": 0.5}}, "set heads in its place"),
        ([], {"at": 4, "times": 3}, "must come before the run's end"),
        ([], {"times": 0}, "times (0) must be at least 1"),
        ([], {"num_batches": 10_000}, "num_batches (10000) must be from 1 to"),
        ([], {"importance": "luck"}, "importance"),
        ([AVERAGE], {}, "EMAWeightAveraging relies on shapes that StructuredPruning changes"),
        ([MAGNITUDE], {}, "MagnitudePruning relies on shapes that StructuredPruning changes"),
    ],
)
def test_what_cannot_be_cut_is_one_line_before_training(
    others: list[dict[str, Any]],
    settings: dict[str, Any],
    message: str,
    config: Path,
    overlay: Overlay,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = overlay(*others, **settings)
    assert main(["fit", "--config", str(config), "--config", path, "--run_dir", "run"]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert len([line for line in error if line.startswith("gpt4o-lit fit:")]) == 1
    assert not Path("run/metrics.csv").exists()
