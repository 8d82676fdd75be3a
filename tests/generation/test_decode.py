"""Cached writing equals the argmax of whole forward passes: alone, in batches, compiled or not."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from gpt4o_lit.generation import (
    PromptFormat,
    SamplingConfig,
    decode,
    fill,
    gap_prompt,
    generate,
    sample,
)
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


def greedy(
    net: Transformer, prompt: str, count: int, bos: Sequence[int] = (), both_ways: bool = False
) -> str:
    """The slow way: a whole forward pass for each token."""
    ids = [*bos, *tokenizer.encode(prompt)]
    source = None
    if net.encoder is not None:
        source, ids = torch.tensor([ids]), [tokenizer.pad_id]
    start = len(ids)
    for _ in range(min(count, net.config.max_seq_len - start + 1)):
        prefix = torch.arange(len(ids))[None] < start if both_ways else None
        tokens = torch.tensor([ids])
        token = int(net(tokens, source_BS=source, prefix_BT=prefix)[0, -1].argmax())
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0, 1])
def test_a_batch_near_the_contexts_end_equals_each_alone(kind: str, temperature: int) -> None:
    net = network(kind, max_seq_len=16)
    config = SamplingConfig(max_new_tokens=8, temperature=temperature)
    prompts = ["a" * 14, "hel", "0123456789", "b" * 16, "x" * 9, "c" * 14]
    steps = list(decode(net, tokenizer, prompts, config))
    alone = [
        [step[0] for step in decode(net, tokenizer, [prompt], config, first=number)]
        for number, prompt in enumerate(prompts)
    ]
    counts = [3, 8, 7, 1, 8, 3] if kind == "decoder" else [8] * 6
    assert [len(tokens) for tokens in alone] == counts
    for row, tokens in enumerate(alone):
        assert [step[row] for step in steps] == tokens + [None] * (8 - len(tokens))
    if temperature == 0:
        texts = generate(net, tokenizer, prompts, config)
        assert texts == [greedy(net, prompt, 8) for prompt in prompts]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 3, 4])
def test_a_prompt_read_in_parts_is_read_the_same(
    kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, config = network(kind), SamplingConfig(max_new_tokens=12, temperature=0)
    prompts = [*PROMPTS, "four", "a much longer prompt than these"]
    whole = generate(net, tokenizer, prompts, config)
    monkeypatch.setattr("gpt4o_lit.generation.prefill.CHUNK", chunk)
    assert generate(net, tokenizer, prompts, config) == whole


def test_equal_prompts_of_one_batch_are_answered_unequally() -> None:
    net, config = network("decoder"), SamplingConfig(max_new_tokens=20, temperature=1)
    assert len(set(generate(net, tokenizer, ["ab"] * 16, config))) == 16


@pytest.mark.parametrize("prompts", [PROMPTS[1:2], PROMPTS])
def test_a_bidirectional_prompt_is_read_as_a_prefix(
    prompts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, config = network("decoder"), SamplingConfig(max_new_tokens=12, temperature=0)
    seen: list[Tensor] = []

    def watched(logits_BV: Tensor, *rest: Any) -> Tensor:
        seen.append(logits_BV)
        return sample(logits_BV, *rest)

    monkeypatch.setattr(sys.modules["gpt4o_lit.generation.decode"], "sample", watched)
    next(decode(net, tokenizer, prompts, config, prompt_format=PromptFormat(bidirectional=True)))
    for prompt, logits_V in zip(prompts, seen[0], strict=True):
        tokens = torch.tensor([tokenizer.encode(prompt)])
        both_ways = net(tokens, prefix_BT=torch.ones_like(tokens, dtype=torch.bool))
        torch.testing.assert_close(logits_V, both_ways[0, -1], atol=1e-5, rtol=1e-5)
        if len(prompt) > 1:
            assert (logits_V - net(tokens)[0, -1]).abs().max() > 1e-2
    written = generate(
        net, tokenizer, prompts, config, prompt_format=PromptFormat(bidirectional=True)
    )
    assert written == [greedy(net, prompt, 12, both_ways=True) for prompt in prompts]


@pytest.mark.parametrize("kind", ["decoder", "encoder", "encoder_decoder"])
def test_writing_compiles_nothing_and_leaves_the_callers_compiler_alone(kind: str) -> None:
    graphs: list[Any] = []

    def backend(graph: Any, inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward  # type: ignore[no-any-return]

    net = network(kind)
    plain = network(kind)
    plain.load_state_dict(net.state_dict())
    for stack in (net.encoder, net.decoder):
        if stack is not None:
            stack.compile(backend=backend)
    config = SamplingConfig(max_new_tokens=3, temperature=0)
    if kind == "encoder":
        assert fill(net, tokenizer, "a<mask>") == fill(plain, tokenizer, "a<mask>")
    else:
        written = generate(net, tokenizer, PROMPTS, config)
        assert written == generate(plain, tokenizer, PROMPTS, config)
    assert not graphs
    if kind == "decoder":
        steps = decode(net, tokenizer, ["ab"], config)
        next(steps)  # what the caller does between two tokens is compiled as before
    source = torch.zeros(1, 4, dtype=torch.long) if kind == "encoder_decoder" else None
    with torch.no_grad():
        net(torch.zeros(1, 4, dtype=torch.long), source_BS=source)
    assert graphs


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


def test_scores_that_no_piece_belongs_to_are_never_chosen() -> None:
    net = network("decoder", extra=200)
    with torch.no_grad():
        net.tokens.weight[tokenizer.vocab_size :] *= 50
    config = SamplingConfig(max_new_tokens=20, temperature=2.0)
    steps = list(decode(net, tokenizer, PROMPTS, config))
    assert max(token for step in steps for token in step if token) < tokenizer.vocab_size


@pytest.mark.parametrize("kind", KINDS)
def test_bos_is_read_where_the_corpus_has_it(kind: str) -> None:
    net = network(kind)
    config = SamplingConfig(max_new_tokens=12, temperature=0)
    written = generate(net, tokenizer, PROMPTS, config, prompt_format=PromptFormat(add_bos=True))
    assert written == [greedy(net, prompt, 12, bos=[tokenizer.bos_id]) for prompt in PROMPTS]


def test_a_gap_is_told_by_what_stands_around_it() -> None:
    marks = tokenizer.fim_ids
    before, behind = [marks["prefix"], *b"ab", marks["suffix"]], [*b" c", marks["middle"]]
    assert gap_prompt(tokenizer, "ab<mask> c") == [*before, *behind]
    for text, count in (("ab", 0), ("a<mask>b<mask>", 2)):
        with pytest.raises(ValueError, match=f"has {count} <mask>, but a decoder fills one gap"):
            gap_prompt(tokenizer, text)


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
