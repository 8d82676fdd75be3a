"""Published forms are known by their columns, and what assistants say is what is learned."""

import json
from pathlib import Path
from typing import Any

import pytest

from gpt4o_lit.corpus import ConversationsConfig, Examples, prepare_conversations
from gpt4o_lit.corpus.conversations import conversation_of, form_of
from gpt4o_lit.tokenizer import Bytes, Message, message_ids

TALK = [Message("user", "hi"), Message("assistant", "hello")]
SAME = {
    "Alpaca": {"instruction": "hi", "input": "", "output": "hello"},
    "ShareGPT": {
        "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    },
    "OpenAI messages": {
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "hello"},
        ]
    },
    "turns": {"turns": ["hi", "hello"]},
}


def prepare(tmp_path: Path, rows: list[dict[str, Any]], **settings: Any) -> Examples:
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = {"valid": str(path), "valid_fraction": 0.0} | settings
    config = ConversationsConfig(train=str(path), **settings)
    return prepare_conversations(config, Bytes(), tmp_path / "prepared", progress=True)


def learned(examples: Examples, index: int = 0) -> tuple[list[int], list[int]]:
    """The pieces of a conversation, and those of them that are learned."""
    pieces, asked = (side.tolist() for side in examples.split("train").pair(index))
    assert len(pieces) == len(asked)
    return pieces, [piece for piece, is_asked in zip(pieces, asked, strict=True) if is_asked]


@pytest.mark.parametrize("form", SAME)
def test_each_form_is_known_and_says_the_same(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = prepare(tmp_path, [SAME[form]])
    assert form_of(SAME[form]) == form
    assert f"train.jsonl: conversations as {form} has them" in capsys.readouterr().err
    assert conversation_of(examples.lines("valid")[0]) == TALK
    pieces, asked = learned(examples)
    tokenizer = examples.tokenizer
    assert pieces == [id for message in TALK for id in message_ids(tokenizer, message)]
    assert asked == [*tokenizer.encode("hello"), tokenizer.role_ids["end"]]


def test_only_assistants_are_learned_in_every_turn(tmp_path: Path) -> None:
    row = {"system": "be kind", "turns": ["a", "b", "c", "d"]}
    examples = prepare(tmp_path, [row])
    _, asked = learned(examples)
    end = examples.tokenizer.role_ids["end"]
    assert asked == [*examples.tokenizer.encode("b"), end, *examples.tokenizer.encode("d"), end]
    assert conversation_of(examples.lines("valid")[0])[0] == Message("system", "be kind")


def test_a_system_text_opens_those_that_have_none(tmp_path: Path) -> None:
    own = {"system": "own", "turns": ["a", "b"]}
    examples = prepare(tmp_path, [own, {"turns": ["a", "c"]}], system="be brief")
    said = [conversation_of(line)[0].content for line in examples.lines("valid")]
    assert said == ["own", "be brief"]


def test_what_has_no_room_for_an_answer_is_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{"instruction": "q" * size, "output": "yes"} for size in (4, 90)]
    examples = prepare(tmp_path, rows, max_len=32)
    counts = examples.counts["train"]
    assert (counts["examples"], counts["question too long"]) == (1, 1)


def test_what_is_too_long_loses_its_last_messages(tmp_path: Path) -> None:
    row = {"turns": ["a", "b", "c" * 40, "d"]}
    pieces, asked = learned(prepare(tmp_path, [row], max_len=16))
    assert pieces == learned(prepare(tmp_path, [{"turns": ["a", "b"]}]))[0]
    pieces, asked = learned(prepare(tmp_path, [{"turns": ["a", "b" * 40]}], max_len=16))
    assert len(pieces) == 16
    assert len(asked) > 8


def test_tools_are_asked_by_the_assistant_and_told_to_it(tmp_path: Path) -> None:
    said = [("human", "a"), ("function_call", "f()"), ("observation", "1"), ("gpt", "b")]
    row = {"conversations": [{"from": who, "value": what} for who, what in said]}
    roles = [
        message.role for message in conversation_of(prepare(tmp_path, [row]).lines("valid")[0])
    ]
    assert roles == ["user", "assistant", "user", "assistant"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "a", "answer": "b"}, r"train\.jsonl:2: its columns .* no form"),
        ({"turns": ["a"]}, r"train\.jsonl:2: no assistant says anything"),
        ({"messages": [{"role": "poet", "content": "a"}]}, r"train\.jsonl:2: .* role 'poet'"),
        ({"messages": ["a"]}, r"train\.jsonl:2: a message has no role and content"),
    ],
)
def test_faults_are_named_or_counted(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    rows = [SAME["turns"], row]
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path, rows)
    counts = prepare(tmp_path, rows, on_error="skip").counts["train"]
    assert counts["unfit row"] == 1
    assert counts["examples"] == 1


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "form", "rows"),
    [
        ("alpaca_en_demo.json", "Alpaca", 999),
        ("alpaca_zh_demo.json", "Alpaca", 1000),
        ("glaive_toolcall_en_demo.json", "ShareGPT", 300),
        ("kto_en_demo.json", "OpenAI messages", 300),
        ("identity.json", "Alpaca", 91),
    ],
)
def test_published_files_are_read_whole(
    name: str,
    form: str,
    rows: int,
    real_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = ConversationsConfig(train=str(real_data / "instruct_demo" / name), valid_fraction=0.0)
    examples = prepare_conversations(config, Bytes(), tmp_path / "prepared", progress=True)
    assert examples.counts["train"]["examples"] == rows
    assert f"conversations as {form} has them" in capsys.readouterr().err
