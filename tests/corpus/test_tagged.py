"""Words keep their tags, whatever pieces they are made of."""

import json
from pathlib import Path
from typing import Any

import pytest

from gpt4o_lit.corpus import Examples, TaggedConfig, prepare_tagged
from gpt4o_lit.tokenizer import Bytes

CONLL = """-DOCSTART- -X- O O

Ada NNP B-PER
Lovelace NNP I-PER
wrote VBD O

to TO O
Paris NNP B-LOC
"""
SENTENCES = [
    (["Ada", "Lovelace", "wrote"], ["B-PER", "I-PER", "O"]),
    (["to", "Paris"], ["O", "B-LOC"]),
]


def prepare(path: Path, **settings: Any) -> Examples:
    settings = {"train": str(path), "valid": str(path)} | settings
    return prepare_tagged(TaggedConfig(**settings), Bytes(), path.parent / "prepared")


def tagged(examples: Examples, index: int) -> list[tuple[str, str]]:
    """The words of a sentence and their tags, as its numbers say them."""
    pieces, classes = (side.tolist() for side in examples.split("train").pair(index))
    words: list[tuple[list[int], str]] = []
    for piece, number in zip(pieces, classes, strict=True):
        if number:
            words.append(([], examples.told["classes"][number - 1]))
        words[-1][0].append(piece)
    return [(examples.tokenizer.decode(word), tag) for word, tag in words]


@pytest.fixture(params=["conll", "lists", "texts"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "conll":
        path = tmp_path / "train.conll"
        path.write_text(CONLL, encoding="utf-8")
        return path
    path = tmp_path / "train.jsonl"
    join = " ".join if request.param == "texts" else list
    rows = [{"tokens": join(words), "tags": join(tags)} for words, tags in SENTENCES]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_each_form_says_the_same(source: Path) -> None:
    examples = prepare(source)
    assert examples.told == {"classes": ["B-LOC", "B-PER", "I-PER", "O"], "counts": [1, 1, 1, 2]}
    for index, (words, tags) in enumerate(SENTENCES):
        assert tagged(examples, index) == list(zip(words, tags, strict=True))
        assert examples.lines("valid")[index]["source"] == words


def test_what_is_too_long_loses_its_last_words(source: Path) -> None:
    examples = prepare(source, max_len=14)
    assert tagged(examples, 0) == [("Ada", "B-PER"), ("Lovelace", "I-PER")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("alone\n", r"train\.conll:9 has a word and no tag"),
        ("\nx B-ORG\n", r"train\.conll:10: its tag 'B-ORG' is none of"),
    ],
)
def test_faults_are_named_with_their_line(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "train.conll"
    path.write_text(CONLL + line, encoding="utf-8")
    names = ["B-LOC", "B-PER", "I-PER", "O"]
    with pytest.raises(ValueError, match=message):
        prepare(path, classes=names)
    examples = prepare(path, classes=names, on_error="skip")
    assert (
        sum(examples.counts["train"].get(kind, 0) for kind in ("unfit row", "too few fields")) == 1
    )


def test_words_and_tags_must_be_equally_many(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"tokens": ["a", "b"], "tags": ["O"]}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"train\.jsonl:1: it has 2 words and 1 tags"):
        prepare(path)
