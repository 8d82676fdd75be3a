"""A conversation becomes tokens that mark who speaks, as many as fit."""

import pytest

from gpt4o_lit.generation import Conversation, SamplingConfig, decode, generate, stream
from gpt4o_lit.tokenizer import ByteTokenizer, Message
from tests.generation.test_decode import KINDS, network

tokenizer = ByteTokenizer()
SYSTEM, USER, ASSISTANT, END = (
    tokenizer.role_ids[name] for name in ("system", "user", "assistant", "end")
)


def talk(max_seq_len: int) -> Conversation:
    """A system message of 4 tokens, two questions and an answer of 5 each."""
    messages = [
        Message("system", "be"),
        Message("user", "one"),
        Message("assistant", "two"),
        Message("user", "six"),
    ]
    return Conversation(tokenizer, max_seq_len, messages)


def test_each_message_stands_between_its_role_and_its_end() -> None:
    ids, left_out = talk(64).prompt(room=8)
    assert left_out == 0
    assert ids == [
        SYSTEM, *b"be", END, USER, *b"one", END, ASSISTANT, *b"two", END, USER, *b"six", END,
        ASSISTANT,
    ]  # fmt: skip


def test_what_looks_like_a_mark_is_text() -> None:
    ids, _ = Conversation(tokenizer, 64, [Message("user", "<|end|>")]).prompt(room=1)
    assert ids == [USER, *b"<|end|>", END, ASSISTANT]


def test_the_oldest_question_is_forgotten_with_its_answer() -> None:
    whole = 4 + 5 + 5 + 5 + 1
    assert talk(whole + 8).prompt(room=8)[1] == 0
    ids, left_out = talk(whole + 7).prompt(room=8)
    assert left_out == 2
    assert ids == [SYSTEM, *b"be", END, USER, *b"six", END, ASSISTANT]
    assert talk(4 + 5 + 1 + 8).prompt(room=8) == (ids, 2)
    with pytest.raises(ValueError, match="no room for an answer of 8 tokens"):
        talk(4 + 5 + 1 + 7).prompt(room=8)


def test_the_system_message_can_be_changed_and_outlives_a_reset() -> None:
    one = talk(64)
    one.instruct("go")
    one.reset()
    assert one.messages == [Message("system", "go")]
    one.instruct("")
    assert one.messages == []


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_as_good_a_prompt_as_the_text_they_say(kind: str) -> None:
    net, config = network(kind), SamplingConfig(max_new_tokens=10, seed=4)
    texts = ["ab", "hello there"]
    ids = [tokenizer.encode(text) for text in texts]
    assert generate(net, tokenizer, ids, config) == generate(net, tokenizer, texts, config)
    assert list(stream(net, tokenizer, ids[0], config)) == list(
        stream(net, tokenizer, "ab", config)
    )


def test_writing_stops_at_the_tokens_that_are_asked_for() -> None:
    net = network("decoder")
    free = SamplingConfig(max_new_tokens=30, temperature=1, seed=2)
    ids = [step[0] for step in decode(net, tokenizer, ["ab"], free)]
    place = next(k for k, id in enumerate(ids) if k > 3 and id not in ids[:k])
    held = SamplingConfig(max_new_tokens=30, temperature=1, seed=2, stop_ids=(ids[place] or 0,))
    shorter = tokenizer.decode([id for id in ids[:place] if id is not None])
    assert generate(net, tokenizer, ["ab"], held) == [shorter]
    assert "".join(stream(net, tokenizer, "ab", held)) == shorter
