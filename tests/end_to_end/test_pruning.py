"""Pruning within a run: what is pruned stays so, whatever else the run does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from tests.end_to_end.conftest import give, kill_and_resume, load, weights
from tests.end_to_end.test_fit import DROPOUT, assert_equal, fit, fit_on_two

MAGNITUDE, MOVEMENT = "MagnitudePruning", "MovementPruning"
WANDA, SPARSE_GPT = "WandaPruning", "SparseGPTPruning"
PRUNED = ("attention", "feed_forward")  # what the names of pruned weights hold

Overlay = Callable[..., str]


@pytest.fixture
def overlay(home: Path) -> Overlay:
    """A file that adds a callback with these settings, and others."""

    def write(*others: dict[str, Any], name: str = MAGNITUDE, **settings: Any) -> str:
        callback = {"class_path": f"gpt4o_lit.callbacks.{name}", "init_args": settings}
        callbacks = [callback, *others]
        path = home / "prune.yaml"
        path.write_text(yaml.safe_dump({"trainer": {"callbacks+": callbacks}}), encoding="utf-8")
        return str(path)

    return write


def state_of(run: Path) -> dict[str, Any]:
    """What the callback left in the last checkpoint."""
    states = load(run, "last")["callbacks"]
    return next(state for key, state in states.items() if "Pruning" in key)


def share_of_flips(one: Path, other: Path) -> float:
    """Among all bits of the masks of two runs."""
    masks, others = (state_of(run)["masks"] for run in (one, other))
    assert masks.keys() == others.keys()
    return float(
        np.concatenate([np.unpackbits((masks[k] ^ others[k]).numpy()) for k in masks]).mean()
    )


def share_of_zeros(state: dict[str, torch.Tensor]) -> float:
    """Among the matrices that are pruned."""
    pruned = [
        weight
        for name, weight in state.items()
        if weight.ndim == 2 and any(part in name for part in PRUNED)
    ]
    assert len(pruned) >= 8
    return sum(int((weight == 0).sum()) for weight in pruned) / sum(w.numel() for w in pruned)


def test_a_pruned_run_is_sparse_to_the_element_and_says_so(config: Path, overlay: Overlay) -> None:
    schedule = {"final": 0.75, "begin": 1, "end": 4, "every": 1}
    run = fit(config, "run", "--config", overlay(schedule=schedule))
    assert share_of_zeros(weights(run)) == 0.75
    untouched = [w for name, w in weights(run).items() if "norm" in name or "tokens" in name]
    assert untouched
    assert all((weight != 0).all() for weight in untouched)
    logged = [row["pruning/sparsity"] for row in read_metrics(run / "metrics.csv")]
    expected = [0, *(0.75 - 0.75 * (1 - step / 3) ** 3 for step in range(4)), 0.75]
    assert logged == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"scope": "row", "schedule": {"shape": "one_shot", "begin": 2}},
        {"scope": "layer", "schedule": {"shape": "linear", "begin": 2, "end": 4, "every": 1}},
        {"pattern": "2:4", "schedule": {"shape": "one_shot", "begin": 2}},
        {"name": MOVEMENT, "schedule": {"begin": 1, "end": 4, "every": 1}},
        {"name": WANDA, "at": 2, "num_batches": 2},
        {"name": SPARSE_GPT, "at": 0, "num_batches": 2},
    ],
)
def test_every_way_to_prune_holds_with_bfloat16_and_compilation(
    settings: dict[str, Any], config: Path, overlay: Overlay
) -> None:
    flags = ("--config", "with/bf16", "--config", "with/compile", DROPOUT, "0")
    run = fit(config, "run", "--config", overlay(**settings), *flags)
    assert share_of_zeros(weights(run)) == 0.5


def test_a_callback_that_is_off_changes_nothing(config: Path, overlay: Overlay) -> None:
    plain = fit(config, "plain")
    off = fit(config, "off", "--config", overlay(enabled=False))
    assert_equal(weights(plain), weights(off), atol=0)


ONE_SHOT = [
    {"name": MAGNITUDE, "schedule": {"shape": "one_shot", "begin": 2}},
    {"name": MOVEMENT, "schedule": {"shape": "one_shot", "begin": 2}},
    {"name": WANDA, "at": 2, "num_batches": 2},
    {"name": SPARSE_GPT, "at": 2, "num_batches": 2, "pattern": "2:4"},
]


@pytest.mark.parametrize("settings", ONE_SHOT)
@pytest.mark.parametrize(
    ("stacks", "objective"),
    [(["encoder"], "MaskedLM"), (["encoder", "decoder"], "SpanCorruption")],
)
def test_encoders_are_pruned_too(
    settings: dict[str, Any], stacks: list[str], objective: str, config: Path, overlay: Overlay
) -> None:
    give(config, stacks, objective)
    run = fit(config, "run", "--config", overlay(**settings))
    assert share_of_zeros(weights(run)) == 0.5


@pytest.mark.parametrize(
    ("name", "flipped"), [pytest.param(MAGNITUDE, 0.0, marks=pytest.mark.slow), (MOVEMENT, 0.01)]
)
def test_micro_batches_prune_as_one_batch_does(
    name: str, flipped: float, config: Path, overlay: Overlay
) -> None:
    """Scores are sums in another order, by which a few that are as good may change places."""
    schedule = {"shape": "one_shot", "begin": 2}
    flags: tuple[str, ...] = ("--config", overlay(name=name, schedule=schedule), DROPOUT, "0")
    whole = fit(config, "whole", *flags)
    flags += ("--data.init_args.batch_size", "1", "--trainer.accumulate_grad_batches", "4")
    parts = fit(config, "parts", *flags, "--trainer.val_check_interval", "12")
    assert share_of_flips(whole, parts) <= flipped
    if not flipped:
        assert_equal(weights(whole), weights(parts), atol=1e-5)


@pytest.mark.slow
def test_two_processes_prune_as_one_does(config: Path, overlay: Overlay) -> None:
    flags = ["--config", overlay(schedule={"shape": "one_shot", "begin": 2}), DROPOUT, "0"]
    alone = fit(config, "alone", *flags)
    half = "--data.init_args.batch_size=2"
    fit_on_two("--config", str(config), "--run_dir", "together", *flags, half)
    assert_equal(state_of(alone)["masks"], state_of(Path("together"))["masks"], atol=0)
    assert_equal(weights(alone), weights(Path("together")), atol=1e-5)


@pytest.mark.parametrize("name", [WANDA, SPARSE_GPT])
@pytest.mark.slow
def test_two_processes_calibrate_on_the_batches_of_both(
    name: str, config: Path, overlay: Overlay
) -> None:
    """Sums in another order may decide otherwise between two weights that are as good."""
    flags = [DROPOUT, "0", "--trainer.max_steps", "1", "--trainer.val_check_interval", "1"]
    alone = fit(config, "alone", "--config", overlay(name=name, num_batches=2), *flags)
    half = "--data.init_args.batch_size=2"
    flags += ["--config", overlay(name=name, num_batches=2), half]
    fit_on_two("--config", str(config), "--run_dir", "together", *flags)
    assert share_of_flips(alone, Path("together")) <= 0.01
    assert share_of_zeros(weights(Path("together"))) == 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({"schedule": {"final": 0.8, "begin": 20, "end": 150, "every": 7}, "rewind_to": 10}, 0.8),
        pytest.param({"name": SPARSE_GPT, "at": 75, "num_batches": 2}, 0.5, marks=pytest.mark.slow),
        pytest.param(
            {"name": MOVEMENT, "schedule": {"final": 0.8, "begin": 20, "end": 150}},
            0.8,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_run_that_was_killed_goes_on_bit_by_bit(
    settings: dict[str, Any], share: float, config: Path, overlay: Overlay
) -> None:
    flags = ("--config", overlay(**settings))
    flags += ("--trainer.max_steps", "200", "--trainer.val_check_interval", "25")
    whole = fit(config, "whole", *flags)
    stopped = kill_and_resume(config, flags, rows=60)
    assert 50 <= stopped < 150
    assert_equal(weights(whole), weights(Path("run")), atol=0)
    assert_equal(state_of(whole)["masks"], state_of(Path("run"))["masks"], atol=0)
    early = [state_of(run).get("early", {}) for run in (whole, Path("run"))]
    assert_equal(*early, atol=0)
    assert share_of_zeros(weights(whole)) == pytest.approx(share, abs=1e-4)


def test_averages_of_weights_are_pruned_too(config: Path, overlay: Overlay) -> None:
    average = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging"}
    settings = {"schedule": {"shape": "one_shot", "begin": 2}}
    run = fit(config, "run", "--config", overlay(average, **settings))
    averaged, current = load(run, "last")["state_dict"], load(run, "last")["current_model_state"]
    assert share_of_zeros(averaged) == share_of_zeros(current) == 0.5
    assert any(not torch.equal(weight, current[name]) for name, weight in averaged.items())


def test_a_lottery_ticket_is_what_it_was_when_it_was_drawn(config: Path, overlay: Overlay) -> None:
    """One step behind the pruning, at a rate of 0.003, nothing is further from there."""
    settings = {"schedule": {"shape": "one_shot", "begin": 5}, "rewind_to": 0}
    run = fit(config, "run", "--config", overlay(**settings))
    early = state_of(run)["early"]
    now = weights(run)
    for name, at_first in early.items():
        weight = now[f"transformer.{name}"]
        kept = weight != 0
        assert (weight - at_first)[kept].abs().max() <= 0.0032
    assert share_of_zeros(weights(run)) == 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": {"names": ["decoder.block.*"]}}, "matches no layer"),
        ({"schedule": {"final": 1.5}}, "must be at least 0 and below 1"),
        ({"pattern": "3:7", "schedule": {"shape": "one_shot", "final": 4 / 7}}, "multiple of M"),
        ({"schedule": {"begin": 3, "end": 6}}, "must come before the run's end"),
        ({"rewind_to": 5, "schedule": {"begin": 3, "end": 4}}, "before the first pruning"),
        ({"scope": "column"}, "scope"),
        ({"name": MOVEMENT, "schedule": {"begin": 0}}, "must be behind the first step"),
        ({"name": WANDA, "num_batches": 1000}, "num_batches (1000) must be from 1 to"),
        ({"name": WANDA, "sparsity": 0.3, "pattern": "2:4"}, "leave one of them out"),
        ({"name": SPARSE_GPT, "targets": {"kinds": ["embeddings"]}}, "tokens is in no block"),
        ({"name": SPARSE_GPT, "sparsity": 1}, "must be at least 0 and below 1"),
    ],
)
def test_what_cannot_be_pruned_is_one_line_before_training(
    settings: dict[str, Any],
    message: str,
    config: Path,
    overlay: Overlay,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = overlay(**settings)
    assert main(["fit", "--config", str(config), "--config", path, "--run_dir", "run"]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert len([line for line in error if line.startswith("gpt4o-lit fit:")]) == 1
    assert not Path("run/metrics.csv").exists()
