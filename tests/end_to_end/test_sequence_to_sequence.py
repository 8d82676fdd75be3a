"""From a table of pairs to a run that answers, is scored, resumed, taught and used like any run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from gpt4o_lit.interop.run import open_run
from tests.end_to_end.conftest import kill_and_resume, load, weights
from tests.end_to_end.test_fit import assert_equal, assert_same_losses, fit, fit_on_two

WORDS = {"0": "zero", "1": "one", "2": "two", "3": "three"}
QUALITY = {
    "class_path": "gpt4o_lit.callbacks.TextQuality",
    "init_args": {"metrics": ["exact_match", "sacrebleu"], "max_new_tokens": 24},
}


@pytest.fixture
def config(config: Path) -> Path:
    """The tiny config, changed for an encoder-decoder that says its source's digit in words."""
    generator = torch.Generator().manual_seed(0)
    lines = []
    for digit, *letters in torch.randint(0, 26, (300, 4), generator=generator).tolist():
        source = str(digit % 4) + "".join(chr(97 + letter) for letter in letters)
        lines.append(f"{source}\t{WORDS[source[0]]}\n")
    Path("pairs.tsv").write_text("".join(lines), encoding="utf-8")
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    arguments = values["model"]["init_args"]
    values["model"]["class_path"] = "gpt4o_lit.tasks.SequenceToSequence"
    del arguments["objective"]
    arguments["transformer"]["encoder"] = arguments["transformer"]["decoder"]
    pairs = {
        "train": "pairs.tsv", "valid_fraction": 0.2, "test_fraction": 0.2,
        "columns": ["digits", "words"], "source": "{digits}", "target": "{words}",
        "max_source_len": 8, "max_target_len": 24,
    }  # fmt: skip
    values["data"] = {
        "class_path": "gpt4o_lit.data.PairsDataModule",
        "init_args": {
            "pairs": pairs,
            "tokenizer": {"class_path": "gpt4o_lit.tokenizer.Bytes"},
            "directory": "prepared",
            "batch_tokens": 128,
        },
    }
    values["trainer"]["callbacks"] = [QUALITY]
    values["samples"] = {}
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    return config


def to_decoder(config: Path) -> None:
    """Have a decoder do it alone."""
    change(config, lambda values: values["model"]["init_args"]["transformer"].pop("encoder"))


def change(config: Path, edit: Any) -> None:
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    edit(values)
    config.write_text(yaml.safe_dump(values), encoding="utf-8")


@pytest.mark.parametrize("joined", [False, True])
def test_a_network_learns_to_answer(
    joined: bool, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if joined:
        to_decoder(config)
    flags = ["--trainer.max_steps", "256", "--trainer.val_check_interval", "null"]
    flags += ["--trainer.check_val_every_n_epoch", "4", "--trainer.log_every_n_steps", "50"]
    flags += ["--model.init_args.optimizer.init_args.lr", "0.01"]
    flags += ["--checkpoint.monitor", "val/exact_match", "--checkpoint.mode", "max"]
    run = fit(config, "run", *flags)
    rows = [row for row in read_metrics(run / "metrics.csv") if "val/exact_match" in row]
    assert rows[-1]["val/loss"] < rows[0]["val/loss"]
    best = max(row["val/exact_match"] for row in rows)
    assert best > 50  # one of four words by chance
    assert (
        float(load(run, "best")["callbacks"]["Checkpoint" + _key(run)]["best_model_score"]) == best
    )
    scores = [json.loads(line) for line in (run / "outputs/scores.jsonl").read_text().splitlines()]
    assert scores[-1]["scores"]["val/exact_match"] == pytest.approx(rows[-1]["val/exact_match"])
    assert "tok:13a" in scores[-1]["signatures"]["val/sacrebleu"]
    outputs = [
        json.loads(line)
        for line in sorted((run / "outputs").glob("val-*"))[-1].read_text().splitlines()
    ]
    right = sum(each["output"] in each["references"] for each in outputs)
    assert right / len(outputs) == pytest.approx(rows[-1]["val/exact_match"] / 100)
    capsys.readouterr()
    assert main(["generate", str(run), "--prompt", "3abc", "--temperature", "0"]) == 0
    assert "three" in capsys.readouterr().out
    assert main(["test", "--resume", str(run)]) == 0
    assert "test/exact_match" in capsys.readouterr().out


def _key(run: Path) -> str:
    names = [name for name in load(run, "best")["callbacks"] if name.startswith("Checkpoint")]
    return names[0].removeprefix("Checkpoint")


@pytest.mark.slow
@pytest.mark.parametrize("joined", [False, True])
def test_a_run_that_was_killed_goes_on_bit_by_bit(joined: bool, config: Path) -> None:
    if joined:
        to_decoder(config)
    flags = ("--trainer.max_steps", "120", "--trainer.val_check_interval", "20")
    flags += ("--trainer.callbacks.init_args.max_examples", "4")
    whole = fit(config, "whole", *flags)
    stopped = kill_and_resume(config, flags, rows=50)
    assert 20 < stopped < 120
    assert_equal(weights(whole), weights(Path("run")), atol=0)


def test_beams_answer_and_labels_are_smoothed(config: Path) -> None:
    plain = fit(config, "plain")
    flags = ["--trainer.callbacks.init_args.num_beams", "3"]
    # Sources are cut for answers too, as they are in training.
    flags += ["--data.init_args.pairs.too_long", "truncate"]
    flags += ["--data.init_args.pairs.max_source_len", "4"]
    smooth = fit(config, "smooth", *flags, "--model.init_args.label_smoothing", "0.2")
    losses = [read_metrics(run / "metrics.csv")[0]["train/loss"] for run in (plain, smooth)]
    assert losses[0] != losses[1]
    assert (smooth / "outputs/val-000006.jsonl").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy", ["with/ddp", "with/tensor_parallel", "with/fsdp2", "with/deepspeed_zero3"]
)
def test_two_processes_equal_one(strategy: str, config: Path) -> None:
    flags = ["--trainer.callbacks.init_args.max_examples", "5"]
    flags += ["--model.init_args.transformer.vocab_size", "368"]
    for side in ("encoder", "decoder"):
        flags += [f"--model.init_args.transformer.{side}.dropout", "0"]
    alone = fit(config, "alone", *flags)
    own = [] if strategy == "with/tensor_parallel" else ["--data.init_args.batch_tokens=64"]
    given = ("--config", str(config), "--run_dir", "together", *flags, *own)
    fit_on_two(*given, strategy=strategy)
    assert_equal(weights(alone), weights(Path("together")), atol=1e-5)
    assert_same_losses(alone, Path("together"))
    outputs = [run / "outputs/val-000006.jsonl" for run in (alone, Path("together"))]
    assert len(outputs[0].read_text().splitlines()) == 5
    assert outputs[0].read_text() == outputs[1].read_text()


@pytest.mark.slow
def test_a_smaller_network_learns_from_a_run(config: Path) -> None:
    teacher = fit(config, "teacher")
    distil = {
        "class_path": "gpt4o_lit.callbacks.Distillation",
        "init_args": {"teacher": str(teacher), "share": 0.5},
    }
    change(config, lambda values: values["trainer"]["callbacks"].append(distil))
    sides = ("encoder", "decoder")
    smaller = [f"--model.init_args.transformer.{side}.num_layers=1" for side in sides]
    student = fit(config, "student", *smaller)
    assert sum(p.numel() for p in open_run(student).transformer.parameters()) < sum(
        p.numel() for p in open_run(teacher).transformer.parameters()
    )


def test_weights_are_rounded_and_pruned_as_in_pretraining(config: Path) -> None:
    callbacks = [
        {"class_path": "gpt4o_lit.callbacks.StructuredPruning",
         "init_args": {"cut": {"heads": 0.5, "multiple_of": 8}, "at": 2, "num_batches": 2}},
        {"class_path": "gpt4o_lit.callbacks.QuantizationAwareTraining",
         "init_args": {"formats": {"format": {"bits": 8, "group_size": 16}}}},
    ]  # fmt: skip
    change(config, lambda values: values["trainer"]["callbacks"].extend(callbacks))
    run = fit(config, "run")
    assert main(["generate", str(run / "compressed"), "--prompt", "3abc"]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data.init_args.pairs.train", "pears.tsv"], "did you mean"),
        (["--data.init_args.pairs.source", "{digit}"], "'digits'"),
        (["--data.init_args.pairs.columns", "[a,b,c]"], "pairs.tsv:1"),
        (["--data.init_args.pairs.max_target_len", "40"], "max_seq_len of 40, not 32"),
        (["--trainer.callbacks.init_args.metrics", "[sacreblue]"], "sacrebleu"),
        (["--checkpoint.monitor", "val/bleu"], "val/bleu"),
        (["--model.init_args.label_smoothing", "1"], r"label_smoothing (1.0) must be"),
    ],
)
def test_mistakes_are_one_line_before_training(
    flags: list[str], message: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(config), "--run_dir", "run", *flags]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert len([line for line in error if line.startswith("gpt4o-lit fit:")]) == 1
    assert not (message == "did you mean" and Path("prepared").exists())


def test_loggers_that_show_tables_are_handed_what_was_written(config: Path) -> None:
    flags = ["--config", "with/wandb", "--config", "with/tensorboard"]
    run = fit(config, "run", *flags, "--trainer.callbacks.init_args.table_rows", "3")
    (events,) = run.glob("**/events.out.tfevents*")
    assert b"val/texts" in events.read_bytes()
    tables = list(run.glob("**/val/texts*.table.json"))
    assert tables
    table = json.loads(tables[0].read_text(encoding="utf-8"))
    assert table["columns"] == ["source", "reference", "output"]
    assert len(table["data"]) == 3
