"""Cached writing equals the argmax of whole forward passes: alone, in batches, in a stream."""

import sys
from collections.abc import Iterator, Sequence

import pytest
import torch

from gpt4o_lit.generation import SamplingConfig, decode, fill, generate, stream
from gpt4o_lit.model import AttentionConfig, StackConfig, Transformer, TransformerConfig
from gpt4o_lit.tokenizer import ByteTokenizer

PROMPTS = ["ab", "hello wor", "x"]
KINDS = ("decoder", "encoder_decoder")
tokenizer = ByteTokenizer()


def network(kind: str, max_seq_len: int = 64, extra: int = 0) -> Transformer:
    stack = StackConfig(num_layers=2, dim=32, attention=AttentionConfig(num_heads=4))
    config = TransformerConfig(
        encoder=stack if kind != "decoder" else None,
        decoder=stack if kind != "encoder" else None,
        vocab_size=tokenizer.vocab_size + extra,
        max_seq_len=max_seq_len,
        init_std=0.2,
    )
    return Transformer(config).eval()


def greedy(net: Transformer, prompt: str, count: int, bos: Sequence[int] = ()) -> str:
    """The slow way: a whole forward pass for each token."""
    ids = [*bos, *tokenizer.encode(prompt)]
    source = None
    if net.encoder is not None:
        source, ids = torch.tensor([ids]), [tokenizer.pad_id]
    start = len(ids)
    for _ in range(count):
        token = int(net(torch.tensor([ids]), source_BS=source)[0, -1].argmax())
        if token == tokenizer.eos_id:
            break
        ids.append(token)
    return tokenizer.decode(ids[start:])


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_writing_equals_whole_forward_passes(kind: str) -> None:
    net = network(kind)
    config = SamplingConfig(max_new_tokens=12, temperature=0)
    assert generate(net, tokenizer, PROMPTS[:1], config) == [greedy(net, PROMPTS[0], 12)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_unequal_prompts_equals_each_alone(kind: str) -> None:
    net = network(kind)
    config = SamplingConfig(max_new_tokens=12, temperature=0)
    together = generate(net, tokenizer, PROMPTS, config)
    assert together == [greedy(net, prompt, 12) for prompt in PROMPTS]


@pytest.mark.parametrize("stop", [(), ("a", "zz"), ("\n",)])
def test_a_stream_joined_equals_generate(stop: tuple[str, ...]) -> None:
    net = network("decoder")
    config = SamplingConfig(max_new_tokens=40, temperature=1.5, stop=stop, seed=3)
    pieces = list(stream(net, tokenizer, "ab", config))
    (whole,) = generate(net, tokenizer, ["ab"], config)
    assert "".join(pieces) == whole
    assert not any(word in whole for word in stop)


def test_the_same_seed_writes_the_same_text_and_another_another() -> None:
    net = network("decoder")
    texts = [
        generate(net, tokenizer, ["ab"], SamplingConfig(max_new_tokens=20, seed=seed))
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_writing_ends_where_the_context_ends() -> None:
    net = network("decoder", max_seq_len=8)
    config = SamplingConfig(max_new_tokens=100, temperature=0)
    written = list(decode(net, tokenizer, ["abcd"], config))
    assert len(written) == 8 - 4 + 1  # the last is told by the last that fits


def test_a_prompt_longer_than_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match=r"9 tokens, more than max_seq_len \(8\)"):
        generate(network("decoder", 8), tokenizer, ["a" * 9], SamplingConfig())


def test_an_encoder_fills_masks_and_writes_nothing() -> None:
    net = network("encoder")
    filled = fill(net, tokenizer, "a<mask>b")
    assert filled.startswith("a")
    assert filled.endswith("b")
    with pytest.raises(ValueError, match="use `fill`"):
        generate(net, tokenizer, ["a"], SamplingConfig())


def test_a_stop_string_torn_inside_a_character_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told(*_: object, **__: object) -> Iterator[list[int]]:
        return iter([[byte] for byte in "abé!".encode()])

    monkeypatch.setattr(sys.modules["gpt4o_lit.generation.decode"], "decode", told)
    net, config = network("decoder"), SamplingConfig(stop=("bé",))
    assert "".join(stream(net, tokenizer, "", config)) == "a"
    assert generate(net, tokenizer, [""], config) == ["a"]


def test_bytes_of_a_character_are_never_shown_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(*_: object, **__: object) -> Iterator[list[int]]:
        return iter([[byte] for byte in "春🙂é".encode()])

    monkeypatch.setattr(sys.modules["gpt4o_lit.generation.decode"], "decode", told)
    assert list(stream(network("decoder"), tokenizer, "", SamplingConfig())) == ["春", "🙂", "é"]


def test_scores_that_no_piece_belongs_to_are_never_chosen() -> None:
    net = network("decoder", extra=200)
    with torch.no_grad():
        net.tokens.weight[tokenizer.vocab_size :] *= 50
    config = SamplingConfig(max_new_tokens=20, temperature=2.0)
    steps = list(decode(net, tokenizer, PROMPTS, config))
    assert max(max(step) for step in steps) < tokenizer.vocab_size


@pytest.mark.parametrize("kind", KINDS)
def test_bos_is_read_where_the_corpus_has_it(kind: str) -> None:
    net = network(kind)
    config = SamplingConfig(max_new_tokens=12, temperature=0)
    written = generate(net, tokenizer, PROMPTS, config, add_bos=True)
    assert written == [greedy(net, prompt, 12, bos=[tokenizer.bos_id]) for prompt in PROMPTS]


def test_a_penalty_keeps_greedy_writing_from_repeating() -> None:
    net = network("decoder")
    config = SamplingConfig(max_new_tokens=20, temperature=0, repetition_penalty=1e6)
    ids = [step[0] for step in decode(net, tokenizer, ["ab"], config)]
    assert len(set(ids)) == len(ids)


def test_no_prompts_give_no_texts() -> None:
    assert generate(network("decoder"), tokenizer, [], SamplingConfig()) == []


def test_a_filled_piece_is_the_likeliest_that_is_text() -> None:
    net = network("encoder", extra=50)
    ids = [*b"a", tokenizer.mask_id, *b"b"]
    likeliest = int(net(torch.tensor([ids]))[0, 1, :256].argmax())
    assert fill(net, tokenizer, "a<mask>b") == tokenizer.decode([*b"a", likeliest, *b"b"])


def test_fill_refuses_what_it_cannot_fill() -> None:
    with pytest.raises(ValueError, match="use `generate`"):
        fill(network("decoder"), tokenizer, "a<mask>")
    with pytest.raises(ValueError, match="no <mask> to fill"):
        fill(network("encoder"), tokenizer, "a")
    with pytest.raises(ValueError, match=r"more than max_seq_len \(8\)"):
        fill(network("encoder", 8), tokenizer, "a" * 9 + "<mask>")
