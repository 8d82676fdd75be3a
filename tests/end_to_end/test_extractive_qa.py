"""From questions and texts to a run that points at answers, in windows of long texts too."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from tests.end_to_end.conftest import kill_and_resume, weights
from tests.end_to_end.test_fit import assert_equal, assert_same_losses, fit, fit_on_two


@pytest.fixture
def config(config: Path) -> Path:
    """The tiny config, changed to point at the one number among words, in texts of two windows."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(240):
        words = [
            "".join(chr(97 + n) for n in torch.randint(0, 26, (3,), generator=generator).tolist())
            for _ in range(8)
        ]
        number = str(int(torch.randint(100, 999, (1,), generator=generator)))
        words[int(torch.randint(0, 8, (1,), generator=generator))] = number
        rows.append({"question": "n", "context": " ".join(words), "answers": [number]})
    Path("asked.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    arguments = values["model"]["init_args"]
    values["model"]["class_path"] = "gpt4o_lit.tasks.ExtractiveQA"
    del arguments["objective"]
    arguments["transformer"]["encoder"] = arguments["transformer"].pop("decoder")
    values["data"] = {
        "class_path": "gpt4o_lit.data.SpansDataModule",
        "init_args": {
            "spans": {"train": "asked.jsonl", "valid_fraction": 0.2, "max_len": 26, "stride": 6},
            "tokenizer": {"class_path": "gpt4o_lit.tokenizer.Bytes"},
            "directory": "prepared",
            "batch_tokens": 256,
        },
    }
    quality = {"metrics": ["exact_match", "token_f1"]}
    values["trainer"]["callbacks"] = [
        {"class_path": "gpt4o_lit.callbacks.TextQuality", "init_args": quality}
    ]
    values["samples"] = {"enabled": False}
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    return config


def test_a_network_learns_to_point_at_answers(config: Path) -> None:
    flags = ["--trainer.max_steps", "150", "--trainer.val_check_interval", "25"]
    flags += ["--model.init_args.optimizer.init_args.lr", "0.01"]
    flags += ["--checkpoint.monitor", "val/exact_match", "--checkpoint.mode", "max"]
    run = fit(config, "run", *flags)
    rows = [row for row in read_metrics(run / "metrics.csv") if "val/exact_match" in row]
    assert max(row["val/exact_match"] for row in rows) > 80
    asked = [{"question": "n", "context": "abc def ghi jkl mno pqr 123 stu vwx"}]
    Path("in.jsonl").write_text("\n".join(map(json.dumps, asked)), encoding="utf-8")
    assert main(["predict-file", str(run), "in.jsonl", "out.txt"]) == 0
    assert Path("out.txt").read_text(encoding="utf-8") == "123\n"


@pytest.mark.slow
def test_a_smaller_network_learns_from_a_run(config: Path) -> None:
    flags = ["--trainer.max_steps", "150", "--trainer.val_check_interval", "25"]
    flags += ["--model.init_args.optimizer.init_args.lr", "0.01"]
    teacher = fit(config, "teacher", *flags)
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    distil = {"teacher": str(teacher), "share": 1.0}
    values["trainer"]["callbacks"].append(
        {"class_path": "gpt4o_lit.callbacks.Distillation", "init_args": distil}
    )
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    smaller = ["--model.init_args.transformer.encoder.num_layers", "1"]
    rows = read_metrics(fit(config, "student", *flags, *smaller) / "metrics.csv")
    assert max(row.get("val/exact_match", 0.0) for row in rows) > 80
    assert rows[-1]["distillation/loss"] < rows[0]["distillation/loss"]


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_bit_by_bit(config: Path) -> None:
    flags = ("--trainer.max_steps", "100", "--trainer.val_check_interval", "10")
    flags += ("--trainer.callbacks.init_args.max_examples", "2")
    whole = fit(config, "whole", *flags)
    stopped = kill_and_resume(config, flags, rows=40)
    assert 10 < stopped < 100
    assert_equal(weights(whole), weights(Path("run")), atol=0)


@pytest.mark.slow
def test_two_processes_equal_one(config: Path) -> None:
    flags = ["--model.init_args.transformer.encoder.dropout", "0"]
    flags += ["--model.init_args.optimizer.init_args.lr", "0.001"]
    alone = fit(config, "alone", *flags)
    half = "--data.init_args.batch_tokens=128"
    fit_on_two("--config", str(config), "--run_dir", "together", *flags, half)
    ours, theirs = weights(alone), weights(Path("together"))
    for each in (ours, theirs):  # it adds the same to all places, so that its slope is rounding
        del each["transformer.head.bias"]
    assert_equal(ours, theirs, atol=1e-5)
    assert_same_losses(alone, Path("together"))
    scores = [read_metrics(Path(run) / "metrics.csv")[-1] for run in ("alone", "together")]
    assert scores[0]["val/token_f1"] == pytest.approx(scores[1]["val/token_f1"], abs=1e-4)
