"""Checkpoints that two processes write in parts: safe, and read by any number of processes."""

import shutil
from pathlib import Path

import pytest
import torch

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from gpt4o_lit.interop.checkpoints import load_checkpoint
from tests.end_to_end.conftest import weights
from tests.end_to_end.test_fit import DROPOUT, assert_equal, fit, fit_on, fit_on_two
from tests.end_to_end.test_fsdp2 import ALONE, HALF

PARTS = ("--trainer.strategy.init_args.save_distributed_checkpoint", "true")
STILL = (DROPOUT, "0", "--trainer.val_check_interval", "2")


def in_parts(config: Path, run: str, *flags: str, processes: int = 2) -> Path:
    batch = ("--data.init_args.batch_size", str(4 // processes))
    given = ("--config", str(config), "--config", "with/fsdp2", "--run_dir", run)
    fit_on(*given, "--trainer.devices", str(processes), *PARTS, *STILL, *batch, *flags)
    return Path(run)


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_parts_are_one_network_for_whoever_reads_them(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same weights as one process learns, kept as files are, found damaged, made one file."""
    whole, run = fit(config, "whole", *STILL), in_parts(config, "run")
    assert_equal(weights(whole), weights(run), atol=1e-5)
    ours, theirs = (load_checkpoint(r / "checkpoints" / "last.ckpt") for r in (run, whole))
    assert ours.keys() == theirs.keys()
    for place, state in theirs["optimizer_states"][0]["state"].items():
        for name, value in state.items():
            own = ours["optimizer_states"][0]["state"][place][name]
            torch.testing.assert_close(own, value, atol=1e-5, rtol=0)
    assert checkpoints(run) == checkpoints(whole)
    assert len(list((run / "checkpoints" / "last.ckpt").glob("*.safetensors"))) == 2
    assert main(["generate", str(run), "--prompt", "the ", "--max_new_tokens", "2"]) == 0
    assert main(["consolidate", str(run), "--output", "one.ckpt"]) == 0
    assert_equal(load_checkpoint(Path("one.ckpt"))["state_dict"], ours["state_dict"], atol=0)
    part = next((run / "checkpoints" / "last.ckpt").glob("shard-00002*"))
    _flip_a_byte(part)
    again = ["fit", "--resume", str(run), *ALONE]
    assert main(again) == 2
    assert f"{part.name} is damaged" in capsys.readouterr().err
    part.unlink()
    assert main(again) == 2
    assert f"{part.name} is damaged" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then"), [(2, 1), (2, 4), (4, 2), (1, 2), (2, 0), (0, 2)], ids=str
)
def test_a_run_goes_on_with_other_processes(first: int, then: int, config: Path) -> None:
    """0 is one process that holds the network whole and writes one file."""
    whole = fit(config, "all", *STILL)
    stopped = ("--trainer.max_steps", "3", "--checkpoint.keep_last", "3")
    if first:
        run = in_parts(config, "run", *stopped, processes=first)
    else:
        run = fit(config, "run", *STILL, *stopped)
    again = ("--resume", str(run), "--trainer.max_steps", "6")
    if then:
        batch = ("--data.init_args.batch_size", str(4 // then))
        strategy = ("--config", "with/fsdp2", *PARTS)
        fit_on(*again, *batch, *strategy, "--trainer.devices", str(then))
    else:
        assert main(["fit", *again, *ALONE, "--data.init_args.batch_size", "4"]) == 0
    assert_equal(weights(whole), weights(run), atol=1e-5)
    kinds = {path.name: path.is_dir() for path in (run / "checkpoints").glob("step_*")}
    assert kinds == {"step_3.ckpt": first > 0, "step_4.ckpt": then > 0, "step_6.ckpt": then > 0}


@pytest.mark.slow
def test_parts_are_written_while_training_goes_on(config: Path) -> None:
    plain = in_parts(config, "plain")
    run = in_parts(config, "run", "--checkpoint.asynchronous", "true")
    assert_equal(weights(plain), weights(run), atol=0)
    assert checkpoints(plain) == checkpoints(run)


@pytest.mark.slow
def test_adapters_in_parts_are_added_where_a_run_is_measured(config: Path) -> None:
    lora = ("--config", "with/lora", "--model.init_args.optimizer.init_args.lr", "0.1")
    run = in_parts(config, "run", *lora)
    assert main(["validate", "--resume", str(run), *ALONE]) == 0
    shared = ("--config", "with/fsdp2", *PARTS, *HALF, "--trainer.devices", "2")
    fit_on("--resume", str(run), *shared, verb="validate")
    best = min(r["val/loss"] for r in read_metrics(run / "metrics.csv") if "val/loss" in r)
    again = [read_metrics(each)[-1] for each in (run / "validate").rglob("metrics.csv")]
    assert [row["val/loss"] for row in again] == pytest.approx([best, best], abs=1e-5)


@pytest.mark.slow
def test_one_goes_back_past_a_damaged_folder(config: Path) -> None:
    run = in_parts(config, "run", "--checkpoint.keep_last", "3")
    whole = weights(run)
    for step in ("step_6.ckpt", "step_4.ckpt"):
        _flip_a_byte(next((run / "checkpoints" / step).glob("shard-00001*")))
    back = ("--resume", str(run), "--resume_from", "previous")
    fit_on_two(*back, *HALF, *PARTS, strategy="with/fsdp2")
    assert_equal(whole, weights(run), atol=1e-5)


@pytest.mark.slow
def test_a_full_disk_costs_no_checkpoint_in_parts(config: Path) -> None:
    run = in_parts(config, "run", "--trainer.max_steps", "2")
    before = weights(run)
    shutil.copytree(run, "copy")
    # Metrics fit into so small a file, parts of weights do not.
    again = ("--resume", str(run), "--trainer.max_steps", "6")
    given = ("--config", "with/fsdp2", *PARTS, *HALF, "--trainer.devices", "2")
    with pytest.raises(AssertionError, match=r"step 6 was not saved .*File too large"):
        fit_on(*again, *given, limit_bytes=16_000)
    assert_equal(before, weights(run), atol=0)
    fit_on(*again, *given)


def _flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
