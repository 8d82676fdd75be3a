"""What is not finite never reaches the weights, by whatever choice, on whatever process it is."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from torch import Tensor

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from tests.end_to_end.conftest import load, weights
from tests.end_to_end.test_fit import DROPOUT, assert_equal, fit, fit_on_two
from tests.end_to_end.test_fsdp2 import HALF

ROOT = Path(__file__).parent.parent.parent
ACCUMULATED = ("--trainer.accumulate_grad_batches", "2", "--trainer.val_check_interval", "6")
UNCLIPPED_BF16 = ("--trainer.gradient_clip_val", "null", "--trainer.precision", "bf16-mixed")


class Poison(Callback):
    """Multiplies the losses of some steps, or their gradients alone, on one rank."""

    def __init__(
        self, steps: list[int], value: float = math.nan, gradient: bool = False, rank: int = 0
    ) -> None:
        self.steps, self.value, self.gradient, self.rank = steps, value, gradient, rank

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        sound = pl_module.weighted_loss

        def poisoned(loss_sum: Tensor, num_targets: Tensor) -> Tensor:
            if trainer.global_step + 1 not in self.steps or trainer.global_rank != self.rank:
                return sound(loss_sum, num_targets)
            if not self.gradient:
                return sound(loss_sum * self.value, num_targets)
            loss = sound(loss_sum, num_targets)
            loss.register_hook(lambda slope: slope * self.value)
            return loss

        pl_module.weighted_loss = poisoned


def guarded(on_nonfinite: str, *flags: str) -> tuple[str, ...]:
    arguments = ("--trainer.callbacks.init_args.on_nonfinite", on_nonfinite)
    return ("--config", "with/stability", *arguments, *flags)


def poisoned(steps: list[int], **settings: Any) -> tuple[str, ...]:
    path = f"{Poison.__module__}.{Poison.__name__}"
    values = {"steps": steps} | settings
    flags = (f"--trainer.callbacks.init_args.{name}={value}" for name, value in values.items())
    return (f"--trainer.callbacks+={path}", *flags)


def counts(run: Path) -> dict[str, int]:
    return dict(load(run, "last")["callbacks"]["Stability"]["counts"])


def assert_same_state(ours: tuple[Path, str], theirs: tuple[Path, str]) -> None:
    """Weights and what the optimizer remembers are the same, bit by bit."""
    assert_equal(weights(*ours), weights(*theirs), atol=0)
    states = [load(*each)["optimizer_states"][0]["state"] for each in (ours, theirs)]
    assert states[0].keys() == states[1].keys()
    for place, state in states[0].items():
        for name, value in state.items():
            assert torch.equal(value, states[1][place][name])


def assert_nothing_changed(run: Path, validated: int, stopped: int) -> None:
    """The last checkpoint is as the one that was saved by the validation before it."""
    assert load(run, "best")["global_step"] == validated
    assert load(run, "last")["global_step"] == stopped
    assert_same_state((run, "last"), (run, "best"))


@pytest.mark.parametrize(
    ("poison", "flags"),
    [
        ({}, ()),
        ({"gradient": True, "value": ".inf"}, (*ACCUMULATED, *UNCLIPPED_BF16)),
        pytest.param({"value": ".inf"}, ACCUMULATED, marks=pytest.mark.slow),
        pytest.param({"gradient": True}, UNCLIPPED_BF16, marks=pytest.mark.slow),
        pytest.param(
            {}, ("--model.init_args.optimizer", "gpt4o_lit.optim.Muon"), marks=pytest.mark.slow
        ),
        pytest.param(
            {}, ("--model.init_args.optimizer", "gpt4o_lit.optim.Adafactor"), marks=pytest.mark.slow
        ),
    ],
)
def test_a_skipped_step_changes_nothing(
    poison: dict[str, Any], flags: tuple[str, ...], config: Path
) -> None:
    four = ("--trainer.max_steps", "4")
    run = fit(config, "run", *guarded("skip"), *poisoned([4], **poison), *flags, *four)
    assert_nothing_changed(run, validated=3, stopped=4)
    assert counts(run) == {"nonfinite": 1, "spikes": 0, "skipped": 1, "rolled_back": 0}
    rows = read_metrics(run / "metrics.csv")
    assert [row["guard/skipped"] for row in rows] == [0, 0, 0, 1]
    assert all(math.isfinite(row["train/loss"] + row["train/grad_norm"]) for row in rows)


def test_a_run_that_raises_is_what_it_was_before_the_step(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*guarded("raise"), *poisoned([4]), "--run_dir", "run"]
    assert main(["fit", "--config", str(config), *flags]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("gpt4o-lit fit: step 4: the loss is nan on rank 0; ")
    assert error.endswith("set on_nonfinite of Stability to skip or roll_back")
    assert_nothing_changed(Path("run"), validated=3, stopped=3)


def test_rolling_back_gives_up_the_steps_since_the_checkpoint(config: Path) -> None:
    flags = (*guarded("roll_back"), *poisoned([5]), "--trainer.max_steps", "5")
    run = fit(config, "run", *flags)
    assert_nothing_changed(run, validated=3, stopped=5)
    assert counts(run) == {"nonfinite": 1, "spikes": 0, "skipped": 1, "rolled_back": 1}


@pytest.mark.slow
def test_rolling_back_goes_on_from_the_last_checkpoint_with_the_text_behind_it(
    config: Path,
) -> None:
    saved = ("--checkpoint.every_n_train_steps", "2", DROPOUT, "0")
    run = fit(config, "run", *guarded("roll_back"), *poisoned([3, 4]), *saved)
    assert counts(run) == {"nonfinite": 2, "spikes": 0, "skipped": 2, "rolled_back": 2}
    # Steps 5 and 6 are what they are for one who had skipped 3 and 4.
    skipped = fit(config, "skipped", *guarded("skip"), *poisoned([3, 4]), *saved)
    assert_same_state((run, "last"), (skipped, "last"))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("skip", "step 4: the loss is nan on rank 0, and max_skips (2) steps before it"),
        ("roll_back", "step 2 is not finite, and there is no checkpoint yet to roll back to"),
    ],
)
def test_what_cannot_be_mended_stops_the_run(
    choice: str, message: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*guarded(choice), "--trainer.callbacks.init_args.max_skips", "2"]
    flags += [*poisoned([2, 3, 4]), "--run_dir", "run"]
    assert main(["fit", "--config", str(config), *flags]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.slow
def test_a_sound_run_is_the_same_with_guards_and_its_counts_go_on(config: Path) -> None:
    plain = fit(config, "plain")
    run = fit(config, "run", *guarded("skip"), "--trainer.max_steps", "3")
    assert main(["fit", "--resume", str(run), "--trainer.max_steps", "6"]) == 0
    assert_same_state((run, "last"), (plain, "last"))
    state = load(run, "last")["callbacks"]["Stability"]
    losses = [row["train/loss"] for row in read_metrics(plain / "metrics.csv")]
    assert state["losses"] == pytest.approx(losses)


def test_a_loss_that_spikes_is_counted_and_skipped_if_asked(config: Path) -> None:
    spikes = ("--trainer.callbacks.init_args.on_spike", "skip")
    steps = ("--trainer.val_check_interval", "24", "--trainer.max_steps")
    run = fit(config, "run", *guarded("raise", *spikes), *poisoned([25], value=30), *steps, "25")
    assert_nothing_changed(run, validated=24, stopped=25)
    assert counts(run) == {"nonfinite": 0, "spikes": 1, "skipped": 1, "rolled_back": 0}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["with/ddp", "with/fsdp2"])
@pytest.mark.parametrize("choice", ["skip", "roll_back", "raise"])
def test_all_processes_decide_alike(
    strategy: str, choice: str, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    flags = ("--config", str(config), *HALF, *guarded(choice), "--run_dir", "run")
    poison = (*poisoned([4], rank=1), "--trainer.max_steps", "4")
    if choice == "raise":
        with pytest.raises(AssertionError, match="step 4: the loss is nan on rank 1; weights"):
            fit_on_two(*flags, *poison, strategy=strategy)
    else:
        fit_on_two(*flags, *poison, strategy=strategy)
        assert counts(Path("run"))["skipped"] == 1
    assert_nothing_changed(Path("run"), validated=3, stopped=3 if choice == "raise" else 4)


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["prune_magnitude", "qat_int4", "lora"])
def test_rolling_back_keeps_what_compression_holds(overlay: str, config: Path) -> None:
    many = ("--trainer.max_steps", "20", "--trainer.val_check_interval", "10")
    run = fit(
        config, "run", "--config", f"with/{overlay}", *guarded("roll_back"), *poisoned([16]), *many
    )
    assert counts(run)["rolled_back"] == 1
    rows = read_metrics(run / "metrics.csv")
    assert all(math.isfinite(row["train/loss"]) for row in rows)
    if overlay == "prune_magnitude":
        matrices = [weight for name, weight in weights(run).items() if ".blocks." in name]
        zeros = sum(int((weight == 0).sum()) for weight in matrices if weight.ndim == 2)
        kept = sum(weight.numel() for weight in matrices if weight.ndim == 2)
        assert zeros / kept == pytest.approx(rows[-1]["pruning/sparsity"], abs=0.01)
