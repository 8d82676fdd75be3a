"""Windows cover a text, and an answer is the same characters again that stand in it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt4o_lit.corpus import Examples, SpansConfig, prepare_spans
from gpt4o_lit.corpus.spans import WORD, closest_place, questions_of, windows_of
from gpt4o_lit.tokenizer import Bytes, ByteTokenizer

TEXT = "Ada Lovelace (1815-1852) wrote of engines. 我爱吃苹果，也爱吃梨。 It's 3.14!"


@given(
    st.lists(
        st.sampled_from(["a", "bc", "(", "1815", "苹", "é", "-", " "]), min_size=1, max_size=40
    ),
    st.integers(16, 40),
    st.integers(0, 7),
    st.data(),
)
@settings(max_examples=80, deadline=None)
def test_an_answer_of_words_is_found_again(
    parts: list[str], max_len: int, stride: int, data: st.DataObject
) -> None:
    context = "".join(parts)
    words = [found.span() for found in WORD.finditer(context)]
    windows = windows_of("who", context, ByteTokenizer(), max_len=max_len, stride=stride)
    assert all(len(window.pieces) <= max_len - 2 for window in windows)
    covered = {span for window in windows for span in window.words}
    assert covered == set(words)
    if not words:
        return
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, min(first + 2, len(words) - 1)))
    start, end = words[first][0], words[last][1]
    targets = [window.target(start, end) for window in windows]
    found = [
        window.answer(context, *target)
        for window, target in zip(windows, targets, strict=True)
        if target != (0, 0)
    ]
    assert all(text == context[start:end] for text in found)
    whole = [w for w in windows if {words[first], words[last]} <= set(w.words)]
    assert len(found) == len(whole)


def test_half_a_word_is_answered_by_the_whole() -> None:
    (window,) = windows_of("q", TEXT, ByteTokenizer(), max_len=200, stride=0)
    start = TEXT.index("ovelace")
    assert window.answer(TEXT, *window.target(start, start + 7)) == "Lovelace"
    start = TEXT.index("苹果")
    assert window.answer(TEXT, *window.target(start, start + 2)) == "苹果"


def prepare(path: Path, **settings: Any) -> Examples:
    settings = {"train": str(path), "valid": str(path), "max_len": 48, "stride": 8} | settings
    return prepare_spans(SpansConfig(**settings), Bytes(), path.parent / "prepared")


FORMS = {
    "texts": ["1815", "(1815"],
    "one text": "1815",
    "SQuAD": {"text": ["1815", "(1815"], "answer_start": [14, 13]},
    "objects": [{"text": "1815", "answer_start": 14}, {"text": "(1815", "answer_start": 13}],
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_says_the_same(form: str, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    row = {"question": "when", "context": TEXT, "answers": FORMS[form]}
    path.write_text(json.dumps(row), encoding="utf-8")
    examples = prepare(path)
    (question,) = questions_of(examples, "valid")
    assert question.answers[0] == "1815"
    windows = windows_of("when", TEXT, examples.tokenizer, max_len=48, stride=8)
    split = examples.split("train")
    assert question.parts == len(windows) == len(split) > 1
    for number, window in enumerate(windows):
        pieces, (first, start, end) = (side.tolist() for side in split.pair(number))
        assert pieces == window.pieces
        assert first == 1 + window.first
        if start:
            assert window.answer(TEXT, start, end) == "1815"
    assert any(split.pair(number)[1][1] for number in range(len(split)))


def test_squads_own_json_is_read(tmp_path: Path) -> None:
    answer = {"text": "1815", "answer_start": 14}
    asked = [
        {"id": "a", "question": "when", "answers": [answer]},
        {"id": "b", "question": "why", "answers": [], "is_impossible": True},
    ]
    squad = {
        "version": "2",
        "data": [{"title": "t", "paragraphs": [{"context": TEXT, "qas": asked}]}],
    }
    path = tmp_path / "train.json"
    path.write_text(json.dumps(squad), encoding="utf-8")
    examples = prepare(path)
    assert examples.told == {"unanswered": 1}
    assert [question.answers for question in questions_of(examples, "valid")] == [["1815"], []]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": ["Babbage"]}, r"train\.jsonl:1: its answer 'Babbage' does not stand in"),
        ({"question": " "}, r"train\.jsonl:1: its question is empty"),
        ({"context": ""}, r"train\.jsonl:1: its context is empty"),
    ],
)
def test_faults_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    row = {"question": "when", "context": TEXT, "answers": ["1815"]} | change
    path.write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        prepare(path)


@pytest.mark.parametrize(
    ("answer", "stretch", "score"),
    [
        ("ada LOVELACE", "Ada Lovelace", 1.0),
        ("She wrote of the engines.", "wrote of engines", 0.75),
        ("of engines and engines", "of engines", 2 / 3),
        ("苹果和梨", "苹果", 2 / 3),
        ("Babbage", "", 0.0),
    ],
)
def test_the_stretch_most_like_an_answer(answer: str, stretch: str, score: float) -> None:
    found, (start, end) = closest_place(TEXT, answer)
    assert (TEXT[start:end], found) == (stretch, pytest.approx(score))


def test_an_answer_in_other_words_is_learned_where_it_is_most_alike(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    answers = ["She wrote of the engines.", "Babbage"]
    path.write_text(
        json.dumps({"question": "what", "context": TEXT, "answers": answers}), encoding="utf-8"
    )
    examples = prepare(path, closest=0.5, max_len=200)
    (question,) = questions_of(examples, "valid")
    assert question.answers == answers  # by which outputs are scored
    (window,) = windows_of("what", TEXT, examples.tokenizer, max_len=200, stride=8)
    _, (_, start, end) = (side.tolist() for side in examples.split("train").pair(0))
    assert window.answer(TEXT, start, end) == "wrote of engines"
    with pytest.raises(ValueError, match=r"nothing in its text is like its answer 'She wrote"):
        prepare(path, closest=0.8)


def test_mistakes_in_the_config_are_told_at_once() -> None:
    with pytest.raises(
        ValueError, match=re.escape("stride (20) must be at least 0 and below half")
    ):
        SpansConfig(train="x.json", max_len=40, stride=20)
