"""A run learns which of two answers is liked better, and goes on exactly where it was killed."""

import json
from pathlib import Path

import pytest
import yaml

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from tests.end_to_end.conftest import kill_and_resume, load, weights
from tests.end_to_end.test_fit import assert_equal, assert_same_losses, fit, fit_on_two


@pytest.fixture
def config(config: Path) -> Path:
    """The tiny config, changed to prefer yes to no, from a run that knows neither."""
    fit(config, "base")
    rows = [{"prompt": f"q{n}", "chosen": "yes", "rejected": "no"} for n in range(120)]
    Path("liked.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    values["model"]["class_path"] = "gpt4o_lit.tasks.PreferenceTuning"
    arguments = values["model"]["init_args"]
    del arguments["objective"], arguments["transformer"]
    arguments["pretrained"] = "base"
    values["data"] = {
        "class_path": "gpt4o_lit.data.PreferencesDataModule",
        "init_args": {
            "preferences": {"train": "liked.jsonl", "valid_fraction": 0.2, "max_len": 32},
            "tokenizer": {"class_path": "gpt4o_lit.tokenizer.Bytes"},
            "directory": "prepared",
            "batch_tokens": 128,
        },
    }
    values["samples"] = {"enabled": False}
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    return config


def test_a_network_comes_to_prefer_what_is_chosen(config: Path) -> None:
    run = fit(config, "run", "--trainer.max_steps", "30", "--trainer.val_check_interval", "15")
    rows = [row for row in read_metrics(run / "metrics.csv") if "val/loss" in row]
    assert rows[-1]["val/accuracy"] == 1.0
    assert rows[-1]["val/margin"] > rows[0]["val/margin"] > 0
    assert rows[-1]["val/loss"] < 0.69
    before, after = load(Path("base"), "best")["state_dict"], load(run, "last")["state_dict"]
    assert before.keys() == after.keys()  # what the network was is in no checkpoint
    assert main(["generate", str(run), "--prompt", "a", "--max_new_tokens", "3"]) == 0


@pytest.mark.slow
def test_preferences_are_learned_from_a_run_that_has_them(config: Path) -> None:
    steps = ["--trainer.max_steps", "30", "--trainer.val_check_interval", "15"]
    teacher = fit(config, "teacher", *steps)
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    distil = {"teacher": str(teacher), "share": 1.0}
    values["trainer"]["callbacks"] = [
        {"class_path": "gpt4o_lit.callbacks.Distillation", "init_args": distil}
    ]
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    rows = read_metrics(fit(config, "student", *steps) / "metrics.csv")
    judged = [row for row in rows if "val/loss" in row]
    assert judged[-1]["val/accuracy"] == 1.0
    assert rows[-1]["distillation/loss"] < rows[0]["distillation/loss"] / 2


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_bit_by_bit(config: Path) -> None:
    flags = ("--trainer.max_steps", "80", "--trainer.val_check_interval", "5")
    flags += ("--model.init_args.optimizer.init_args.lr", "1e-4")
    whole = fit(config, "whole", *flags)
    stopped = kill_and_resume(config, flags, rows=30)
    assert 5 < stopped < 80
    assert_equal(weights(whole), weights(Path("run")), atol=0)


@pytest.mark.slow
def test_two_processes_equal_one(config: Path) -> None:
    flags = ["--model.init_args.dropout", "0", "--model.init_args.optimizer.init_args.lr", "1e-4"]
    alone = fit(config, "alone", *flags)
    half = "--data.init_args.batch_tokens=64"
    fit_on_two("--config", str(config), "--run_dir", "together", *flags, half)
    assert_equal(weights(alone), weights(Path("together")), atol=1e-5)
    assert_same_losses(alone, Path("together"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.init_args.beta", "0"], "beta (0.0) must be above 0"),
        (["--data.init_args.preferences.max_len", "40"], "max_seq_len (32)"),
        (["--data.init_args.batch_tokens", "60"], "must have room for the longest example (64"),
    ],
)
def test_mistakes_are_one_line(
    flags: list[str], message: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(config), "--run_dir", "run", *flags]) == 2
    assert message in capsys.readouterr().err
