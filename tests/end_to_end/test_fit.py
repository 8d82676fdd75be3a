"""From a text file to a trained, sampled, described run; stopped and gone on with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from tests.end_to_end.conftest import weights

DROPOUT = "--model.init_args.transformer.decoder.dropout"


def fit(config: Path, run: str, *flags: str) -> Path:
    assert main(["fit", "--config", str(config), "--run_dir", run, *flags]) == 0
    return Path(run)


def assert_equal(
    ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], atol: float
) -> None:
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        apart = (weight - theirs[name]).abs().max()
        assert apart <= atol, f"{name} is {apart} apart"


def test_a_run_leaves_everything_in_its_directory(config: Path) -> None:
    run = fit(config, "run")
    for name in (
        "config.yaml", "manifest.json", "metrics.csv", "samples.md", "MODEL_CARD.md",
        "checkpoints/best.ckpt", "checkpoints/last.ckpt", "checkpoints/config.yaml",
        "plots/loss.png", "plots/learning_rate.png", "plots/tokens_per_second.png",
    ):  # fmt: skip
        assert (run / name).stat().st_size > 0, name
    rows = read_metrics(run / "metrics.csv")
    assert len(rows) == 6
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    assert all("perf/tokens_per_second" in row for row in rows)
    validated = [row for row in rows if "val/loss" in row]
    assert len(validated) == 2
    assert validated[1]["val/bits_per_byte"] < validated[0]["val/bits_per_byte"]
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["steps"] == 6
    assert manifest["data"]["checksum"]
    assert "What does it cost to deploy?" in (run / "MODEL_CARD.md").read_text()
    assert (run / "samples.md").read_text().count("## Step") == 2


def test_bits_per_byte_of_bytes_is_the_loss_in_bits(config: Path) -> None:
    row = read_metrics(fit(config, "run") / "metrics.csv")[-1]
    per_token = row["val/loss"] / torch.log(torch.tensor(2.0)).item()
    # Each line of the text ends with eos, which is a target but no byte of text.
    assert per_token < row["val/bits_per_byte"] < per_token * 1.1


def test_a_run_is_never_overwritten(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(config, "run")
    assert main(["fit", "--config", str(config), "--run_dir", "run"]) == 2
    assert "go on with it by --resume run" in capsys.readouterr().err


def test_a_run_that_was_stopped_equals_one_that_never_was(config: Path) -> None:
    whole = fit(config, "whole")
    fit(config, "stopped", "--trainer.max_steps", "3")
    assert main(["fit", "--resume", "stopped", "--trainer.max_steps", "6"]) == 0
    assert_equal(weights(whole), weights(Path("stopped")), atol=0)
    metrics = [read_metrics(Path(run) / "metrics.csv") for run in ("whole", "stopped")]
    assert [row["train/loss"] for row in metrics[0]] == [row["train/loss"] for row in metrics[1]]


def test_a_run_resumed_by_another_process_equals_one_that_never_was_stopped(config: Path) -> None:
    def process(*arguments: str) -> None:
        command = [sys.executable, "-m", "gpt4o_lit", "fit", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]

    process("--config", str(config), "--run_dir", "whole")
    process("--config", str(config), "--run_dir", "stopped", "--trainer.max_steps", "3")
    process("--resume", "stopped", "--trainer.max_steps", "6")
    assert_equal(weights(Path("whole")), weights(Path("stopped")), atol=0)


def test_flags_outrank_the_config_of_a_run_that_goes_on(config: Path) -> None:
    fit(config, "run", "--trainer.max_steps", "3")
    lr = "--model.init_args.optimizer.init_args.weight_decay"
    assert main(["fit", "--resume", "run", "--trainer.max_steps", "4", lr, "0.5"]) == 0
    assert (Path("run") / "checkpoints" / "last.ckpt").is_file()


def test_samples_change_nothing_in_training(config: Path) -> None:
    with_samples = fit(config, "with")
    without = fit(config, "without", "--samples.enabled", "false")
    assert_equal(weights(with_samples), weights(without), atol=0)
    assert not (without / "samples.md").exists()


def test_four_micro_batches_of_one_equal_one_batch_of_four(config: Path) -> None:
    flags = (DROPOUT, "0", "--trainer.max_steps", "3")
    whole = fit(config, "whole", *flags)
    flags += ("--data.init_args.batch_size", "1", "--trainer.accumulate_grad_batches", "4")
    flags += ("--trainer.val_check_interval", "12")
    parts = fit(config, "parts", *flags)
    assert_equal(weights(whole), weights(parts), atol=1e-5)


def test_two_processes_equal_one(config: Path) -> None:
    flags = [DROPOUT, "0", "--trainer.max_steps", "3"]
    alone = fit(config, "alone", *flags)
    command = [sys.executable, "-m", "gpt4o_lit", "fit", "--config", str(config)]
    command += ["--run_dir", "together", *flags, "--data.init_args.batch_size", "2"]
    command += ["--trainer.strategy", "ddp", "--trainer.devices", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_equal(weights(alone), weights(Path("together")), atol=1e-5)
    ours, theirs = (read_metrics(Path(r) / "metrics.csv")[-1] for r in ("alone", "together"))
    assert ours["val/loss"] == pytest.approx(theirs["val/loss"], abs=1e-5)


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_a_run_can_be_measured_again(verb: str, config: Path) -> None:
    run = fit(config, "run")
    assert main([verb, "--resume", "run"]) == 0
    (again,) = (run / verb).rglob("metrics.csv")
    split = "val" if verb == "validate" else "test"
    assert f"{split}/loss" in read_metrics(again)[-1]
    if verb == "validate":
        last = read_metrics(run / "metrics.csv")[-1]["val/loss"]
        assert read_metrics(again)[-1]["val/loss"] == pytest.approx(last, abs=1e-6)


@pytest.mark.parametrize(
    ("stacks", "objective"),
    [
        (["encoder"], "MaskedLM"),
        (["encoder", "decoder"], "SpanCorruption"),
        (["decoder"], "PrefixLM"),
    ],
)
def test_an_objective_is_one_key_away(stacks: list[str], objective: str, config: Path) -> None:
    import yaml

    values = yaml.safe_load(config.read_text())
    arguments = values["model"]["init_args"]
    stack = arguments["transformer"].pop("decoder")
    arguments["transformer"] |= dict.fromkeys(stacks, stack)
    arguments["objective"]["class_path"] = f"gpt4o_lit.objectives.{objective}"
    values["samples"] = {}
    config.write_text(yaml.safe_dump(values))
    run = fit(config, "run", "--trainer.max_steps", "12")
    rows = read_metrics(run / "metrics.csv")
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    assert (run / "samples.md").is_file()


def test_generate_writes_behind_a_prompt(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(config, "run")
    capsys.readouterr()
    call = ["generate", "run", "--prompt", "the cat ", "--max_new_tokens", "12"]
    assert main(call) == 0
    first = capsys.readouterr().out
    assert first.startswith("the cat ")
    assert main(call) == 0
    assert capsys.readouterr().out == first


def test_wandb_offline_and_tensorboard_write_into_the_run(config: Path) -> None:
    run = fit(config, "run", "--config", "with/wandb", "--config", "with/tensorboard")
    assert list(run.glob("wandb/offline-run-*"))
    assert list(run.glob("tensorboard/events.out.tfevents.*"))
    assert (run / "config.yaml").is_file()
    assert not Path("config.yaml").exists()


def test_a_checkpoint_is_plain_data(config: Path) -> None:
    run = fit(config, "run")
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["transformer_config"]["decoder"]["num_layers"] == 2


@pytest.mark.slow
def test_a_compiled_run_learns_the_same_and_keeps_the_keys(config: Path) -> None:
    plain = fit(config, "plain", DROPOUT, "0")
    compiled = fit(config, "compiled", "--config", "with/compile", DROPOUT, "0")
    assert_equal(weights(plain), weights(compiled), atol=1e-4)
    dropped = fit(config, "dropped", "--config", "with/compile", DROPOUT, "0.5")
    assert weights(dropped).keys() == weights(plain).keys()
