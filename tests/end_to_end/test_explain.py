"""Explaining while training: what it writes, and that training does not notice."""

from pathlib import Path

import pytest

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics

ADDED = ("--trainer.callbacks+", "gpt4o_lit.callbacks.Explain", "--trainer.callbacks.text")


@pytest.mark.slow
def test_training_is_the_same_with_and_without(config: Path) -> None:
    runs = [Path("plain"), Path("explained")]
    for run, flags in zip(runs, ((), (*ADDED, "the cat")), strict=True):
        assert main(["fit", "--config", str(config), "--run_dir", str(run), *flags]) == 0
    plain, explained = (read_metrics(run / "metrics.csv") for run in runs)
    losses = [
        [row["train/loss"] for row in rows if "train/loss" in row] for rows in (plain, explained)
    ]
    assert losses[0] == losses[1]
    for step in (3, 6):
        place = runs[1] / "explain" / f"step_{step}"
        assert (place / "explain.html").stat().st_size > 1000
        assert {"lens.png", "attention_decoder_layer_2.png"} <= {p.name for p in place.iterdir()}


def test_a_text_that_is_too_long_is_told_before_training(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--config", str(config), "--run_dir", "run", *ADDED, "a" * 99]
    assert main(["fit", *flags]) == 2
    assert "the text has 99 tokens" in capsys.readouterr().err.strip().splitlines()[-1]
