"""A network whose matrices two processes share learns, is saved and goes on as a whole one does."""

import csv
from pathlib import Path

import pytest
import torch
import yaml

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from tests.end_to_end.conftest import give, load, weights
from tests.end_to_end.test_fit import (
    DROPOUT,
    assert_equal,
    assert_same_losses,
    fit,
    fit_on,
    fit_on_two,
)
from tests.end_to_end.test_fsdp2 import ALONE, HALF, refusal

SHARED, BOTH = "with/tensor_parallel", "with/fsdp2_tensor_parallel"
STILL = (DROPOUT, "0")
LONG = ("--trainer.max_steps", "20", "--trainer.val_check_interval", "20")
LONG += ("--trainer.accumulate_grad_batches", "2", "--trainer.gradient_clip_val", "0.5")
NETWORKS = [
    (["decoder"], "CausalLM"),
    (["decoder"], "PrefixLM"),
    (["encoder"], "MaskedLM"),
    (["encoder", "decoder"], "SpanCorruption"),
]


@pytest.fixture
def config(config: Path) -> Path:
    """The tiny config with pieces that two processes can share."""
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    values["model"]["init_args"]["transformer"]["vocab_size"] = 368
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    return config


def shared(config: Path, run: str, *flags: str) -> Path:
    fit_on_two("--config", str(config), "--run_dir", run, *flags, strategy=SHARED)
    return Path(run)


def on_four(config: Path, run: str, *flags: str) -> Path:
    given = ("--config", str(config), "--config", BOTH, "--run_dir", run, *HALF)
    fit_on(*given, "--trainer.devices", "4", *flags)
    return Path(run)


def assert_same_runs(alone: Path, run: Path) -> None:
    """Losses, norms and what the network writes; weights as near as Adam's division leaves them."""
    assert_same_losses(alone, run)
    ours, theirs = (read_metrics(each / "metrics.csv") for each in (alone, run))
    for name in ("val/loss", "val/accuracy", "train/grad_norm"):
        assert ours[-1][name] == pytest.approx(theirs[-1][name], abs=1e-5)
    assert_equal(weights(alone), weights(run), atol=1e-4)
    assert (run / "samples.md").read_text() == (alone / "samples.md").read_text()


def still(stacks: list[str]) -> list[str]:
    return [f"--model.init_args.transformer.{stack}.dropout=0" for stack in stacks]


@pytest.mark.slow
@pytest.mark.parametrize(("stacks", "objective"), NETWORKS)
def test_shared_matrices_learn_as_whole_ones_do(
    stacks: list[str], objective: str, config: Path
) -> None:
    give(config, stacks, objective)
    alone = fit(config, "alone", *still(stacks), *LONG)
    assert len(read_metrics(alone / "metrics.csv")) == 20
    assert_same_runs(alone, shared(config, "run", *still(stacks), *LONG))


@pytest.mark.slow
@pytest.mark.parametrize(("stacks", "objective"), NETWORKS)
def test_two_pairs_learn_as_one_process_does(
    stacks: list[str], objective: str, config: Path
) -> None:
    give(config, stacks, objective)
    alone = fit(config, "alone", *still(stacks), *LONG)
    assert_same_runs(alone, on_four(config, "run", *still(stacks), *LONG))


@pytest.mark.slow
def test_an_untied_head_is_shared_too(config: Path) -> None:
    flags = (*STILL, "--model.init_args.transformer.tie_embeddings=false")
    alone = fit(config, "alone", *flags)
    assert_same_runs(alone, shared(config, "run", *flags))


@pytest.mark.slow
@pytest.mark.parametrize("first", ["shared", "both", "alone", "parts", "folder"])
def test_a_run_goes_on_under_another_strategy(first: str, config: Path) -> None:
    """From shared matrices to one process and to FSDP2, and from either to them."""
    whole = fit(config, "all", *STILL)
    stopped, on = (*STILL, "--trainer.max_steps", "3"), ("--trainer.max_steps", "6")
    resume, full = ("--resume", "run", *on), ("--data.init_args.batch_size", "4")
    if first == "shared":
        run = shared(config, "run", *stopped)
        assert main(["fit", *resume, *ALONE]) == 0
    elif first == "both":
        run = on_four(config, "run", *stopped)
        fit_on_two(*resume, strategy="with/fsdp2")
    elif first == "alone":
        run = fit(config, "run", *stopped)
        fit_on(*resume, *HALF, "--config", BOTH, "--trainer.devices", "4")
    else:
        given = ("--config", str(config), "--run_dir", "run", *HALF, *stopped)
        given += ("--trainer.strategy", "gpt4o_lit.strategies.FSDP2")
        in_parts = ("--trainer.strategy.init_args.save_distributed_checkpoint", "true")
        given += in_parts if first == "folder" else ()
        fit_on(*given, "--trainer.devices", "2")
        run = Path("run")
        fit_on_two(*resume, *full, strategy=SHARED)
    assert_equal(weights(whole), weights(run), atol=1e-5)
    rows = (read_metrics(each / "metrics.csv")[-1] for each in (whole, run))
    assert next(rows)["train/loss"] == pytest.approx(next(rows)["train/loss"], abs=1e-5)


@pytest.mark.slow
def test_dropout_is_drawn_by_each_process_and_goes_on_exactly(config: Path) -> None:
    flags = (DROPOUT, "0.5", "--model.init_args.transformer.decoder.attention.dropout", "0.1")
    whole = shared(config, "whole", *flags)
    stopped = shared(config, "stopped", *flags, "--trainer.max_steps", "3")
    coins = [rank["torch"] for rank in load(stopped, "last")["callbacks"]["RandomState"]["ranks"]]
    assert len(coins) == 2
    assert not torch.equal(coins[0], coins[1])
    fit_on_two("--resume", "stopped", "--trainer.max_steps", "6", strategy=SHARED)
    assert_equal(weights(whole), weights(stopped), atol=0)


@pytest.mark.slow
def test_nothing_is_counted_twice(config: Path) -> None:
    """The card tells the tokens of one process; prediction writes each window once."""
    flags = (*STILL, "--trainer.max_steps", "3")
    alone, run = fit(config, "alone", *flags), shared(config, "run", *flags)
    seen = [
        next(line for line in (each / "MODEL_CARD.md").read_text().splitlines() if "seen" in line)
        for each in (alone, run)
    ]
    assert seen[0] == seen[1]
    for each in (alone, run):
        assert main(["predict", "--resume", str(each), *ALONE]) == 0
    command = ("--resume", str(run), "--config", SHARED, "--trainer.devices", "2")
    fit_on(*command, verb="predict")
    paths = sorted(path for path in Path().rglob("predictions*.csv"))
    assert len(paths) == 3
    first, *others = map(read_predictions, paths)
    for other in others:
        assert [row[:2] for row in other] == [row[:2] for row in first]
        nats = [row[2] for row in first]
        assert [row[2] for row in other] == pytest.approx(nats, abs=1e-4)


def read_predictions(path: Path) -> list[tuple[str, str, float]]:
    """Window, piece and nats of each row."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [(row["window"], row["id"], float(row["nats"])) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--config", "with/prune_magnitude"], "MagnitudePruning needs weights that are whole"),
        (["--config", "with/compile"], "compile (true) gives wrong gradients"),
        (["--trainer.devices", "4"], "num_heads (2) must be a multiple of the 4 processes"),
        (
            ["--model.init_args.transformer.vocab_size", "369"],
            "transformer.vocab_size (369) must be a multiple of the 2 processes that share the "
            "network; set it to 370",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused(flags: list[str], told: str, config: Path) -> None:
    given = ["--config", SHARED, "--trainer.devices", "2", *flags]
    assert told in refusal(config, *given)
