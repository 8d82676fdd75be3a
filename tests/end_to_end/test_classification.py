"""From a table of labelled texts to a run that classifies, is scored, resumed and used."""

import csv
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

DROPOUT = "--model.init_args.transformer.encoder.dropout"


@pytest.fixture
def config(config: Path) -> Path:
    """The tiny config, changed to tell whether a text of letters has an x or a y in it."""
    generator = torch.Generator().manual_seed(0)
    lines = ["kind\ttext\ttags\n"]
    for letters in torch.randint(0, 20, (300, 6), generator=generator).tolist():
        text = [chr(97 + letter) for letter in letters]
        tags = []
        for place, mark in ((1, "x"), (4, "y")):
            if letters[place] % 2:
                text[place] = mark
                tags.append(f"has {mark}")
        lines.append(f"{'x' in text}\t{''.join(text)}\t{';'.join(tags)}\n")
    Path("texts.tsv").write_text("".join(lines), encoding="utf-8")
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    arguments = values["model"]["init_args"]
    values["model"]["class_path"] = "gpt4o_lit.tasks.Classification"
    del arguments["objective"]
    arguments["transformer"]["encoder"] = arguments["transformer"].pop("decoder")
    values["data"] = {
        "class_path": "gpt4o_lit.data.LabelledDataModule",
        "init_args": {
            "labelled": {
                "train": "texts.tsv", "valid_fraction": 0.2, "test_fraction": 0.2,
                "text": "{text}", "label": "kind", "max_len": 16,
            },
            "tokenizer": {"class_path": "gpt4o_lit.tokenizer.Bytes"},
            "directory": "prepared",
            "batch_tokens": 128,
        },
    }  # fmt: skip
    values["trainer"]["callbacks"] = [{"class_path": "gpt4o_lit.callbacks.LabelQuality"}]
    values["samples"] = {"enabled": False}
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    return config


def change(config: Path, edit: Any) -> None:
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    edit(values)
    config.write_text(yaml.safe_dump(values), encoding="utf-8")


def to_decoder(values: dict[str, Any]) -> None:
    stacks = values["model"]["init_args"]["transformer"]
    stacks["decoder"] = stacks.pop("encoder")


def several(values: dict[str, Any]) -> None:
    values["data"]["init_args"]["labelled"] |= {
        "label": "tags", "multi_label": True, "separator": ";",
    }  # fmt: skip


LONG = ["--trainer.max_steps", "120", "--trainer.val_check_interval", "null",
        "--trainer.check_val_every_n_epoch", "2", "--checkpoint.monitor", "val/accuracy",
        "--checkpoint.mode", "max", "--model.init_args.optimizer.init_args.lr", "0.01"]  # fmt: skip


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_a_network_learns_to_tell_classes_apart(
    kind: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "decoder":
        change(config, to_decoder)
    run = fit(config, "run", *LONG)
    rows = [row for row in read_metrics(run / "metrics.csv") if "val/accuracy" in row]
    assert max(row["val/accuracy"] for row in rows) > 0.9
    assert {"val/macro_f1", "val/matthews", "val/calibration_error"} <= rows[-1].keys()
    opened = open_run(run)
    assert opened.classification == load(run, "best")["classification"]
    assert opened.classification["classes"] == ["False", "True"]
    assert opened.transformer.config.num_classes == 2
    capsys.readouterr()
    assert main(["predict-file", str(run), "--text", "axcdef"]) == 0
    assert capsys.readouterr().out.startswith("True")
    assert main(["generate", str(run), "--prompt", "a"]) == 2 if kind == "decoder" else True
    assert main(["predict", "--resume", str(run)]) == 0
    (file,) = run.glob("predict/*/predictions.csv")
    predicted = list(csv.DictReader(file.open(encoding="utf-8")))
    right = sum(row["prediction"] == row["label"] for row in predicted)
    assert right / len(predicted) > 0.8
    assert all(abs(float(row["p(False)"]) + float(row["p(True)"]) - 1) < 1e-4 for row in predicted)


def test_a_text_may_have_several_classes(config: Path) -> None:
    change(config, several)
    run = fit(config, "run", *LONG)
    rows = [row for row in read_metrics(run / "metrics.csv") if "val/accuracy" in row]
    assert max(row["val/micro_f1"] for row in rows) > 0.9
    Path("in.txt").write_text("abcdef\naxcdyf\n", encoding="utf-8")
    assert main(["predict-file", str(run), "in.txt", "out.jsonl"]) == 0
    answers = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [answer["output"] for answer in answers] == ["", "has x, has y"]
    assert answers[0]["probabilities"].keys() == {"has x", "has y"}


def test_pairs_of_sentences_and_a_pretrained_network(config: Path) -> None:
    base = fit(config, "base")
    change(config, lambda values: values["model"]["init_args"].pop("transformer"))
    pair = '["{text}", "{kind}"]'
    flags = ["--model.init_args.pretrained", str(base), "--data.init_args.directory", "other"]
    run = fit(config, "run", *flags, "--data.init_args.labelled.text", pair)
    before, after = load(base, "best")["state_dict"], load(run, "last")["state_dict"]
    assert before.keys() == after.keys()


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_bit_by_bit(config: Path) -> None:
    flags = ("--trainer.max_steps", "120", "--trainer.val_check_interval", "10")
    flags += ("--model.init_args.word_dropout", "0.2")
    whole = fit(config, "whole", *flags)
    stopped = kill_and_resume(config, flags, rows=50)
    assert 20 < stopped < 120
    assert_equal(weights(whole), weights(Path("run")), atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["with/ddp", "with/tensor_parallel"])
@pytest.mark.parametrize("multi", [False, True])
def test_two_processes_equal_one(multi: bool, strategy: str, config: Path) -> None:
    if multi:
        change(config, several)
    flags = [DROPOUT, "0", "--model.init_args.optimizer.init_args.lr", "0.001"]
    flags += ["--model.init_args.transformer.vocab_size", "368"]
    alone = fit(config, "alone", *flags)
    own = ["--data.init_args.batch_tokens=64"] if strategy == "with/ddp" else []
    given = ("--config", str(config), "--run_dir", "together", *flags, *own)
    fit_on_two(*given, strategy=strategy)
    assert_equal(weights(alone), weights(Path("together")), atol=1e-5)
    assert_same_losses(alone, Path("together"))
    scores = [read_metrics(Path(run) / "metrics.csv")[-1] for run in ("alone", "together")]
    for name in scores[0]:
        if name.startswith("val/"):
            assert scores[0][name] == pytest.approx(scores[1][name], abs=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize("edit", [lambda values: None, several], ids=["one", "several"])
def test_a_smaller_network_learns_from_a_run(edit: Any, config: Path) -> None:
    change(config, edit)
    teacher = fit(config, "teacher", *LONG)
    distil = {
        "class_path": "gpt4o_lit.callbacks.Distillation",
        "init_args": {"teacher": str(teacher), "share": 1.0},
    }
    change(config, lambda values: values["trainer"]["callbacks"].append(distil))
    smaller = ["--model.init_args.transformer.encoder.num_layers", "1"]
    student = fit(config, "student", *LONG, *smaller)
    rows = read_metrics(student / "metrics.csv")
    assert max(row.get("val/accuracy", 0.0) for row in rows) > 0.9
    assert rows[-1]["distillation/loss"] < rows[0]["distillation/loss"]


def test_a_classifier_is_cut_and_rounded(config: Path) -> None:
    callbacks = [
        {"class_path": "gpt4o_lit.callbacks.StructuredPruning",
         "init_args": {"cut": {"channels": 0.5, "multiple_of": 16}, "at": 2, "num_batches": 2}},
        {"class_path": "gpt4o_lit.callbacks.QuantizationAwareTraining",
         "init_args": {"formats": {"format": {"bits": 8, "group_size": 16}}}},
    ]  # fmt: skip
    change(config, lambda values: values["trainer"]["callbacks"].extend(callbacks))
    run = fit(config, "run")
    assert main(["predict-file", str(run / "compressed"), "--text", "abc"]) == 0


@pytest.mark.parametrize(
    ("line", "flags", "message"),
    [
        (
            "maybe\tabc\t\n",
            ["--data.init_args.labelled.classes", "['False','True']"],
            "texts.tsv:302",
        ),
        ("\tabc\t\n", [], "texts.tsv:302: column 'kind' is ''"),
        ("True\t \t\n", [], "texts.tsv:302: its text is empty"),
        ("", ["--data.init_args.labelled.label", "kin"], "did you mean 'kind'"),
        ("", ["--data.init_args.labelled.max_len", "40"], "max_seq_len (32)"),
        ("", ["--model.init_args.pool", "men"], "Literal['mean'"),
    ],
)
def test_mistakes_are_one_line_before_training(
    line: str, flags: list[str], message: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Path("texts.tsv")
    table.write_text(table.read_text(encoding="utf-8") + line, encoding="utf-8")
    assert main(["fit", "--config", str(config), "--run_dir", "run", *flags]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert len([each for each in error if each.startswith("gpt4o-lit fit:")]) <= 1


def test_a_class_with_one_example_is_told_and_faulty_rows_are_counted(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Path("texts.tsv")
    more = "alone\tqqqqqqq\t\nTrue\t \t\n"
    table.write_text(table.read_text(encoding="utf-8") + more, encoding="utf-8")
    flags = ["--data.init_args.labelled.on_error", "skip"]
    fit(config, "run", *flags, "--data.init_args.labelled.test_fraction", "0")
    told = capsys.readouterr().out
    assert "class alone has 1 examples in train" in told or "alone" not in told.split("classes:")[1]
    assert "1 unfit row" in told
