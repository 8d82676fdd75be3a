"""From a file of conversations to a run that one can talk with."""

import json
from pathlib import Path

import pytest
import yaml

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from tests.end_to_end.conftest import kill_and_resume, weights
from tests.end_to_end.test_fit import assert_equal, fit

ANSWERS = {"a": "one", "b": "two", "c": "three"}


@pytest.fixture
def config(config: Path) -> Path:
    """The tiny config, changed to answer a letter by a number."""
    rows = [
        {"messages": [{"role": "user", "content": f"{letter}{n}"},
                      {"role": "assistant", "content": ANSWERS[letter]}]}
        for n in range(80) for letter in ANSWERS
    ]  # fmt: skip
    Path("talks.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    values["model"]["class_path"] = "gpt4o_lit.tasks.InstructionTuning"
    del values["model"]["init_args"]["objective"]
    values["data"] = {
        "class_path": "gpt4o_lit.data.ConversationsDataModule",
        "init_args": {
            "conversations": {"train": "talks.jsonl", "valid_fraction": 0.1, "max_len": 32},
            "tokenizer": {"class_path": "gpt4o_lit.tokenizer.Bytes"},
            "directory": "prepared",
            "batch_tokens": 256,
        },
    }
    values["samples"] = {"enabled": False}
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    return config


@pytest.mark.slow
def test_one_can_talk_with_what_has_learned_from_conversations(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--trainer.max_steps", "150", "--trainer.val_check_interval", "15"]
    run = fit(config, "run", *flags, "--model.init_args.optimizer.init_args.lr", "0.01")
    rows = [row for row in read_metrics(run / "metrics.csv") if "val/loss" in row]
    assert rows[-1]["val/loss"] < 0.5 * rows[0]["val/loss"]
    said = iter(["b7", "/quit"])
    monkeypatch.setattr("builtins.input", lambda *_: next(said, "/quit"))
    capsys.readouterr()
    assert main(["chat", str(run), "--temperature", "0", "--max_new_tokens", "8"]) == 0
    assert "two" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_bit_by_bit(config: Path) -> None:
    flags = ("--trainer.max_steps", "120", "--trainer.val_check_interval", "15")
    whole = fit(config, "whole", *flags)
    stopped = kill_and_resume(config, flags, rows=50)
    assert 20 < stopped < 120
    assert_equal(weights(whole), weights(Path("run")), atol=0)


@pytest.mark.slow
def test_packed_conversations_are_learned_and_gone_on_with_bit_by_bit(config: Path) -> None:
    flags = ("--trainer.max_steps", "60", "--trainer.val_check_interval", "15")
    flags += ("--data.init_args.pack", "true")
    whole = fit(config, "whole", *flags)
    losses = [r["val/loss"] for r in read_metrics(whole / "metrics.csv") if "val/loss" in r]
    assert losses[-1] < 0.8 * losses[0]
    stopped = kill_and_resume(config, flags, rows=25)
    assert 10 < stopped < 60
    assert_equal(weights(whole), weights(Path("run")), atol=0)


def test_a_pretrained_network_goes_on_by_adapters(config: Path) -> None:
    base = fit(config, "base")
    overlay = ["--config", "with/lora", "--trainer.max_steps", "4"]
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    del values["model"]["init_args"]["transformer"]
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    run = fit(config, "run", "--model.init_args.pretrained", str(base), *overlay)
    assert main(["generate", str(run), "--prompt", "a", "--max_new_tokens", "3"]) == 0
