"""The verb `chat`, with what a user types on its input."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt4o_lit.__main__ import main
from gpt4o_lit.generation import Conversation, SamplingConfig, stream
from gpt4o_lit.tokenizer import ByteTokenizer, Message
from tests.commands.conftest import MakeRun, packed

Say = Callable[..., tuple[str, str]]
FLAGS = ["--max_new_tokens", "4", "--temperature", "0"]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Type these lines; what is shown on both outputs."""

    def typed(run: Path, lines: list[str], *flags: str) -> tuple[str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        assert main(["chat", str(run), *FLAGS, *flags]) == 0
        return capsys.readouterr()

    return typed


def test_answers_read_what_was_said_before(make_run: MakeRun, say: Say, tmp_path: Path) -> None:
    run, net = make_run()
    tokenizer = ByteTokenizer()
    talk = Conversation(tokenizer, 32, [Message("system", "s")])
    answers = []
    for line in ("a", "b"):
        talk.messages.append(Message("user", line))
        ids, left_out = talk.prompt(4)
        assert not left_out
        config = SamplingConfig(max_new_tokens=4, temperature=0, stop_ids=(talk.end_id,))
        answers.append("".join(stream(net, tokenizer, ids, config)))
        talk.messages.append(Message("assistant", answers[-1]))
    file = tmp_path / "talk.json"
    out, err = say(run, ["a", "", "b", f"/save {file}"], "--system", "s")
    assert out == "".join(f"{answer}\n" for answer in answers)
    assert f"saved 5 messages to {file}" in err
    saved = json.loads(file.read_text(encoding="utf-8"))["messages"]
    assert [(m["role"], m["content"]) for m in saved] == [
        (m.role, m.content) for m in talk.messages
    ]


def test_a_compressed_run_talks_too(make_run: MakeRun, say: Say) -> None:
    run = packed(make_run()[0])
    out, _ = say(run, ["a"])
    assert out == say(run, ["a"], "--engine", "onnxruntime")[0]


def test_commands_are_obeyed(make_run: MakeRun, say: Say, tmp_path: Path) -> None:
    run, _ = make_run()
    file = tmp_path / "talk.json"
    lines = [
        "a",
        "/reset",
        "/system be brief",
        f"/save {file}",
        f"/save {file}",
        "/sav",
        "/quit",
        "b",
    ]
    out, err = say(run, lines)
    assert out.count("\n") == 1
    assert json.loads(file.read_text(encoding="utf-8")) == {
        "messages": [{"role": "system", "content": "be brief"}]
    }
    assert "File exists; give another name" in err
    assert "no command /sav" in err
    assert "/reset" in err


def test_an_old_message_is_forgotten_and_a_long_one_refused(make_run: MakeRun, say: Say) -> None:
    run, _ = make_run()
    out, err = say(run, ["twelve signs", "and twelve  m", "x" * 40, "ok"])
    assert out.count("\n") == 3
    assert "the oldest 2 messages no longer fit" in err
    assert "leaves no room for an answer of 4 tokens in a context of 32" in err


def test_an_encoder_cannot_talk(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = make_run("encoder")
    assert main(["chat", str(run)]) == 2
    assert "is an encoder, which writes no text" in capsys.readouterr().err
