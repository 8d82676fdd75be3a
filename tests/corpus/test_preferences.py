"""Preferences in their published forms, and which of their pieces are answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from gpt4o_lit.corpus import Examples, PreferencesConfig, prepare_preferences
from gpt4o_lit.tokenizer import Bytes

USER = {"role": "user", "content": "hi"}
GOOD, BAD = {"role": "assistant", "content": "yes"}, {"role": "assistant", "content": "no!"}
SAME: dict[str, dict[str, Any]] = {
    "texts": {"prompt": "hi", "chosen": "yes", "rejected": "no!"},
    "whole messages": {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "prompt of messages": {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
    "ShareGPT": {
        "conversations": [{"from": "human", "value": "hi"}],
        "chosen": {"from": "gpt", "value": "yes"},
        "rejected": {"from": "gpt", "value": "no!"},
    },
}


def prepare(tmp_path: Path, rows: list[dict[str, Any]], **settings: Any) -> Examples:
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    config = PreferencesConfig(train=str(path), **{"valid_fraction": 0.0} | settings)
    return prepare_preferences(config, Bytes(), tmp_path / "prepared")


@pytest.mark.parametrize("form", SAME)
def test_each_form_says_the_same(form: str, tmp_path: Path) -> None:
    examples = prepare(tmp_path, [SAME[form]])
    tokenizer = examples.tokenizer
    roles, encode = tokenizer.role_ids, tokenizer.encode
    prompt = [roles["user"], *encode("hi"), roles["end"], roles["assistant"]]
    chosen, rejected = (side.tolist() for side in examples.split("train").pair(0))
    assert chosen == [*prompt, *encode("yes"), roles["end"]]
    assert rejected == [len(prompt), *prompt, *encode("no!"), roles["end"]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "chosen": "b"}, r"train\.jsonl:2: it has no column 'rejected'"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "empty or alike"),
        ({"chosen": "b", "rejected": "c"}, "no form of conversations"),
        ({"chosen": [GOOD], "rejected": [USER]}, "does not end with what an assistant says"),
    ],
)
def test_faults_are_named_or_counted(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    rows = [SAME["texts"], row]
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path, rows)
    assert prepare(tmp_path, rows, on_error="skip").counts["train"]["unfit row"] == 1


def test_answers_are_cut_and_where_the_prompt_fills_the_room_left_out(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p" * size, "chosen": "yes " * 9, "rejected": "no " * 9} for size in (4, 30, 90)
    ]
    examples = prepare(tmp_path, rows, max_len=32, too_long="truncate")
    counts = examples.counts["train"]
    assert (counts["examples"], counts["prompt too long"]) == (1, 2)
    chosen, rejected = examples.split("train").pair(0)
    assert len(chosen) == len(rejected) - 1 == 32
    assert rejected[0] < 32


@pytest.mark.data
def test_a_published_file_is_read_whole(real_data: Path, tmp_path: Path) -> None:
    path = str(real_data / "instruct_demo/dpo_en_demo.json")
    config = PreferencesConfig(train=path, valid_fraction=0.0, max_len=100_000)
    examples = prepare_preferences(config, Bytes(), tmp_path / "prepared")
    assert examples.counts["train"]["examples"] == 300
