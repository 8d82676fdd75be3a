"""Text behind a prompt: a stream joined equals the whole, and nothing is torn or glued."""

import io
from collections.abc import Iterator

import pytest
import sentencepiece
import torch

from gpt4o_lit.generation import SamplingConfig, fill, generate, stream, write
from gpt4o_lit.tokenizer import ByteTokenizer
from gpt4o_lit.tokenizer.sentence_piece import SentencePieceTokenizer
from tests.generation.test_decode import KINDS, network

tokenizer = ByteTokenizer()
SENTENCE = "The quick brown 春 fox jumps"


@pytest.fixture(scope="module")
def foreign() -> SentencePieceTokenizer:
    """A model as those of Llama and T5: a space is put before each text and taken off again."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([SENTENCE.replace("春 ", "")] * 20),
        model_writer=model,
        model_type="bpe",
        vocab_size=320,
        hard_vocab_limit=False,
        byte_fallback=True,
        add_dummy_prefix=True,
        minloglevel=2,
    )
    return SentencePieceTokenizer(model.getvalue())


def tell(monkeypatch: pytest.MonkeyPatch, ids: list[int]) -> None:
    """Let the network write these ids."""

    def told(*_: object, **__: object) -> Iterator[list[int]]:
        return iter([[id] for id in ids])

    monkeypatch.setattr(write, "decode", told)


@pytest.mark.parametrize("stop", [(), ("a", "zz"), ("\n",)])
def test_a_stream_joined_equals_generate(stop: tuple[str, ...]) -> None:
    net = network("decoder")
    config = SamplingConfig(max_new_tokens=40, temperature=1.5, stop=stop, seed=3)
    pieces = list(stream(net, tokenizer, "ab", config))
    (whole,) = generate(net, tokenizer, ["ab"], config)
    assert "".join(pieces) == whole
    assert not any(word in whole for word in stop)


def test_a_stop_string_torn_inside_a_character_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tell(monkeypatch, list("abé!".encode()))
    net, config = network("decoder"), SamplingConfig(stop=("bé",))
    assert "".join(stream(net, tokenizer, "", config)) == "a"
    assert generate(net, tokenizer, [""], config) == ["a"]


def test_bytes_of_a_character_are_never_shown_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, list("春🙂é".encode()))
    assert list(stream(network("decoder"), tokenizer, "", SamplingConfig())) == ["春", "🙂", "é"]


@pytest.mark.parametrize(
    ("stop", "completion"),
    [
        ((), " brown 春 fox jumps"),
        ((" fox",), " brown 春"),
        ((" brown",), ""),
        (("春 f",), " brown "),
    ],
)
def test_the_space_behind_the_prompt_is_kept(
    stop: tuple[str, ...],
    completion: str,
    foreign: SentencePieceTokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompt = foreign.encode("The quick")
    ids = foreign.encode(SENTENCE)
    assert ids[: len(prompt)] == prompt
    tell(monkeypatch, ids[len(prompt) :])
    net, config = network("decoder"), SamplingConfig(stop=stop)
    assert generate(net, foreign, ["The quick"], config) == [completion]
    pieces = list(stream(net, foreign, "The quick", config))
    assert "".join(pieces) == completion
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize(("kind", "prompt"), [("encoder_decoder", "The quick"), ("decoder", "")])
def test_a_text_of_its_own_begins_without_a_space(
    kind: str, prompt: str, foreign: SentencePieceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, foreign.encode("brown fox"))
    net = network(kind)
    assert generate(net, foreign, [prompt], SamplingConfig()) == ["brown fox"]
    assert "".join(stream(net, foreign, prompt, SamplingConfig())) == "brown fox"


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_of_a_foreign_model_joined_equals_generate(
    kind: str, foreign: SentencePieceTokenizer
) -> None:
    net = network(kind, extra=foreign.vocab_size)
    config = SamplingConfig(max_new_tokens=40, temperature=2.0, stop=("wn", " q"))
    joined = "".join(stream(net, foreign, "The quick", config))
    assert [joined] == generate(net, foreign, ["The quick"], config)


def test_what_stands_behind_a_mask_gets_no_space(foreign: SentencePieceTokenizer) -> None:
    net = network("encoder", extra=foreign.vocab_size - tokenizer.vocab_size)
    torch.nn.init.zeros_(net.head.weight)  # all pieces are equally likely: the first is taken
    first = min(set(range(foreign.vocab_size)) - set(foreign.special_ids))
    assert foreign.is_byte(first)
    assert fill(net, foreign, "quick<mask>fox") == "quick\0fox"
