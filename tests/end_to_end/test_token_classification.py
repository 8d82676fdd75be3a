"""From a CoNLL file to a run that finds names, is scored by whole ones, and tags a file."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from tests.end_to_end.conftest import kill_and_resume, weights
from tests.end_to_end.test_fit import assert_equal, fit


@pytest.fixture
def config(config: Path) -> Path:
    """The tiny config, changed to find names: words of capitals, of one or two in a row."""
    generator = torch.Generator().manual_seed(0)
    lines: list[str] = []
    for _ in range(200):
        before = "O"
        for number in torch.randint(0, 3, (5,), generator=generator).tolist():
            letters = torch.randint(0, 26, (2,), generator=generator).tolist()
            word = "".join(chr(97 + n) for n in letters)
            tag = "O" if number else ("I-NAME" if before != "O" else "B-NAME")
            lines.append(f"{word if number else word.upper()} {tag}")
            before = tag
        lines.append("")
    Path("names.conll").write_text("\n".join(lines), encoding="utf-8")
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    arguments = values["model"]["init_args"]
    values["model"]["class_path"] = "gpt4o_lit.tasks.TokenClassification"
    del arguments["objective"]
    arguments["transformer"]["encoder"] = arguments["transformer"].pop("decoder")
    values["data"] = {
        "class_path": "gpt4o_lit.data.TaggedDataModule",
        "init_args": {
            "tagged": {"train": "names.conll", "valid_fraction": 0.2, "max_len": 24},
            "tokenizer": {"class_path": "gpt4o_lit.tokenizer.Bytes"},
            "directory": "prepared",
            "batch_tokens": 256,
        },
    }
    values["trainer"]["callbacks"] = [{"class_path": "gpt4o_lit.callbacks.LabelQuality"}]
    values["samples"] = {"enabled": False}
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    return config


def test_a_network_learns_to_find_names(config: Path) -> None:
    flags = ["--trainer.max_steps", "100", "--trainer.val_check_interval", "10"]
    flags += ["--model.init_args.optimizer.init_args.lr", "0.01"]
    flags += ["--checkpoint.monitor", "val/entity_f1", "--checkpoint.mode", "max"]
    run = fit(config, "run", *flags)
    rows = [row for row in read_metrics(run / "metrics.csv") if "val/entity_f1" in row]
    assert max(row["val/entity_f1"] for row in rows) > 0.9
    assert "val/bits_per_byte" not in rows[-1]
    texts = ["ab CD EF gh", "xy QR", "ab " * 12]
    Path("in.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    assert main(["predict-file", str(run), "in.txt", "out.jsonl"]) == 0
    found = [json.loads(line)["tags"] for line in Path("out.jsonl").read_text().splitlines()]
    names = [[(tag or "").endswith("NAME") for tag in tags] for tags in found]
    assert names[:2] == [[False, True, True, False], [False, True]]
    assert len(found[2]) == 12
    assert found[2][-1] is None  # it is longer than training has seen


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_bit_by_bit(config: Path) -> None:
    flags = ("--trainer.max_steps", "120", "--trainer.val_check_interval", "10")
    whole = fit(config, "whole", *flags)
    stopped = kill_and_resume(config, flags, rows=50)
    assert 20 < stopped < 120
    assert_equal(weights(whole), weights(Path("run")), atol=0)
