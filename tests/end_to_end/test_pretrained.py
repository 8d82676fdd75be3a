"""A run goes on from the weights of another, or of an imported model."""

import shutil
from pathlib import Path

import pytest
import torch

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from gpt4o_lit.interop.pretrained import Pretrained
from gpt4o_lit.interop.run import read_weights
from tests.conftest import Saved
from tests.end_to_end.conftest import load, weights
from tests.end_to_end.test_fit import assert_equal, fit

STILL = ("--model.init_args.optimizer.init_args.lr", "1e-12")


@pytest.fixture
def going_on(config: Path, home: Path) -> Path:
    """The tiny config, its network taken from the run `base`, with dropout."""
    text = config.read_text(encoding="utf-8")
    start, end = text.index("    transformer:"), text.index("name: tiny")
    changed = f"{text[:start]}    pretrained: base\n    dropout: 0.2\n{text[end:]}"
    path = home / "on.yaml"
    path.write_text(changed, encoding="utf-8")
    return path


def test_a_run_starts_where_another_ended(config: Path, going_on: Path) -> None:
    base = fit(config, "base")
    run = fit(going_on, "run", *STILL, "--trainer.max_steps", "3")
    best = dict(load(base, "best")["state_dict"])
    assert_equal(best, weights(run), atol=1e-7)
    losses = [
        [row["val/loss"] for row in read_metrics(each / "metrics.csv") if "val/loss" in row]
        for each in (base, run)
    ]
    assert losses[1][0] == pytest.approx(min(losses[0]), abs=1e-5)
    decoder = load(run, "last")["transformer_config"]["decoder"]
    assert (decoder["dropout"], decoder["embedding_dropout"]) == (0.2, 0.2)


@pytest.mark.slow
def test_such_a_run_that_was_stopped_equals_one_that_never_was(
    config: Path, going_on: Path
) -> None:
    fit(config, "base")
    whole = fit(going_on, "whole")
    stopped = fit(going_on, "stopped", "--trainer.max_steps", "3")
    assert main(["fit", "--resume", "stopped", "--trainer.max_steps", "6"]) == 0
    assert_equal(weights(whole), weights(stopped), atol=0)


def test_an_imported_model_is_fine_tuned_and_gets_the_pieces_it_lacks(
    theirs: Saved, going_on: Path
) -> None:
    assert main(["import", str(theirs("llama")), "--run_dir", "base"]) == 0
    tokenizer = ("--data.init_args.tokenizer", "gpt4o_lit.tokenizer.LoadTokenizer")
    path = ("--data.init_args.tokenizer.init_args.path", "base")
    run = fit(going_on, "run", *tokenizer, *path, *STILL)
    base, after = Pretrained.read("base"), weights(run)
    rows = base.config.vocab_size or 0
    extended = after["transformer.tokens.weight"]
    assert len(extended) > rows
    torch.testing.assert_close(extended[:rows], read_weights(base.saved)["tokens.weight"])
    spread = (extended[rows:] - extended[:rows].mean(0)).std()
    assert 0 < spread < 0.05 * extended[:rows].std()
    assert main(["generate", "run", "--prompt", "the cat", "--max_new_tokens", "3"]) == 0


def test_mistakes_are_one_line(
    config: Path, going_on: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(config, "base")
    capsys.readouterr()
    characters = ("--data.init_args.tokenizer", "gpt4o_lit.tokenizer.TrainCharacters")
    messages = {
        ("--config", str(going_on), *characters): "LoadTokenizer, init_args.path base",
        ("--config", str(config), "--model.init_args.pretrained", "base"): "leave one out",
        ("--config", str(config), "--model.init_args.dropout", "0.1"): "set it in transformer",
        ("--config", str(going_on), "--model.init_args.pretrained", "bas"): "no run directory",
    }
    for flags, message in messages.items():
        assert main(["fit", *flags]) == 2
        error = capsys.readouterr().err
        assert message in error, error
    shutil.rmtree("base")
    assert main(["fit", "--config", str(going_on)]) == 2
    assert "base is no run directory" in capsys.readouterr().err
