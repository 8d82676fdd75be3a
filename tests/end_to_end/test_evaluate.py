"""Evaluating while training: what it logs, and that training does not notice."""

from pathlib import Path

import pytest

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks import Evaluate
from gpt4o_lit.callbacks.metrics_log import read_metrics
from gpt4o_lit.evaluation.perplexity import text_quality
from gpt4o_lit.interop.run import open_run

ADDED = ("--trainer.callbacks+", "gpt4o_lit.callbacks.Evaluate", "--trainer.callbacks.texts")


def test_training_is_the_same_with_and_without(config: Path) -> None:
    held_out = Path("held_out.txt")
    held_out.write_text("some words that were held out\n" * 4)
    evaluated = (*ADDED, f"[{held_out}]", "--trainer.callbacks.every_n_steps", "3")
    runs = [Path("plain"), Path("evaluated")]
    for run, flags in zip(runs, ((), evaluated), strict=True):
        assert main(["fit", "--config", str(config), "--run_dir", str(run), *flags]) == 0
    plain, measured = (read_metrics(run / "metrics.csv") for run in runs)
    losses = [
        [row["train/loss"] for row in rows if "train/loss" in row] for rows in (plain, measured)
    ]
    assert losses[0] == losses[1]
    name = "eval/held_out.txt/bits_per_byte"
    told = [row[name] for row in measured if name in row]
    assert len(told) == 2
    run = open_run(runs[1], "last")
    quality = text_quality(run.transformer, run.tokenizer, [held_out.read_text()])
    assert told[-1] == pytest.approx(quality.bits_per_byte, rel=1e-4)


def test_a_missing_text_is_told_before_training(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--config", str(config), "--run_dir", "run", *ADDED, "[missing.txt]"]
    assert main(["fit", *flags]) == 2
    assert "missing.txt" in capsys.readouterr().err.strip().splitlines()[-1]


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="neither tasks nor texts"):
        Evaluate()
