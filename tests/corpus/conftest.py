"""A small folder of text, and corpora built from it."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt4o_lit.corpus import Corpus, CorpusConfig, build, prepare
from gpt4o_lit.tokenizer import Bytes

WORDS = ["the", "cat", "sat", "on", "a", "mat", "while", "x", "return", "春眠", "處處", "été", "😀"]


def lines(seed: int, count: int) -> list[str]:
    """`count` different lines of words."""
    draw = random.Random(seed)
    return [
        f"{k} " + " ".join(draw.choice(WORDS) for _ in range(draw.randrange(1, 30)))
        for k in range(count)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of 300 lines; each line is to be a document."""
    place = tmp_path / "text"
    place.mkdir()
    for seed in (1, 2):
        (place / f"{seed}.txt").write_text("\n".join(lines(seed, 300)) + "\n", encoding="utf-8")
    return place


@pytest.fixture
def config(folder: Path) -> CorpusConfig:
    return CorpusConfig(sources=[str(folder)], documents="line", valid_fraction=0.1)


@pytest.fixture
def corpus(config: CorpusConfig, tmp_path: Path) -> Corpus:
    return prepare(config, Bytes(), tmp_path / "corpus", num_workers=0)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make shards of so many bytes, so that little text has many of them."""

    def change(size: int) -> None:
        monkeypatch.setattr(build, "SMALLEST_SHARD", size)
        monkeypatch.setattr(build, "LARGEST_SHARD", size)

    return change
