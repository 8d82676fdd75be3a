"""The data module serves the corpus that it prepared, and no other."""

from pathlib import Path

import pytest
import torch

from gpt4o_lit.corpus import CorpusConfig
from gpt4o_lit.data import PackedDataModule
from gpt4o_lit.tokenizer import Bytes


def data_module(directory: Path, text: str, **settings: int) -> PackedDataModule:
    source = directory / "text.txt"
    source.write_text(text, encoding="utf-8")
    corpus = CorpusConfig(sources=[str(source)], documents="line", valid_fraction=0.2)
    settings = {"seq_len": 16, "batch_size": 2, "num_workers": 0, **settings}
    return PackedDataModule(corpus, Bytes(), str(directory / "corpus"), **settings)


def lines(word: str) -> str:
    return "".join(f"{word} {number}\n" for number in range(200))


def test_batches_are_windows_of_the_text(tmp_path: Path) -> None:
    data = data_module(tmp_path, lines("alpha"))
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["tokens"].shape == (2, 17)
    assert "alpha" in data.tokenizer.decode(batch["tokens"][0].tolist())
    assert data.batches_per_epoch == len(data.train_dataloader()) > 20
    read = torch.cat([batch["tokens"][:, :-1].flatten() for batch in data.val_dataloader()])
    assert "alpha" in data.tokenizer.decode(read.tolist())


def test_a_corpus_that_another_run_made_meanwhile_is_refused(tmp_path: Path) -> None:
    ours = data_module(tmp_path, lines("alpha"))
    ours.prepare_data()
    data_module(tmp_path, lines("beta")).prepare_data()
    with pytest.raises(ValueError, match="corpus"):
        ours.setup("fit")


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch_size \\(0\\) must be at least 1"):
        data_module(tmp_path, "text\n", batch_size=0)
    large = data_module(tmp_path, lines("alpha"), batch_size=10_000)
    large.prepare_data()
    large.setup("fit")
    with pytest.raises(ValueError, match="fewer than a batch_size of 10000"):
        large.train_dataloader()
