"""The likelihood of texts behind others: many at once as one at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt4o_lit.evaluation.likelihood import Pair, likelihoods
from gpt4o_lit.evaluation.perplexity import text_quality, windows
from gpt4o_lit.generation import PromptFormat
from gpt4o_lit.model import AttentionConfig, StackConfig, Transformer, TransformerConfig
from gpt4o_lit.tokenizer import ByteTokenizer

tokenizer = ByteTokenizer()
LONGEST = 12
PAIRS: list[Pair] = [
    ([5, 6], [7]),
    ([5, 6], [8]),
    ([5], [6, 7]),
    ([9, 8, 7, 6, 5, 4, 3, 2, 1, 9, 8, 7], [1, 2, 3]),
    ([1], list(range(3, 3 + LONGEST))),
]


def net(kind: str) -> Transformer:
    stack = StackConfig(num_layers=2, dim=16, attention=AttentionConfig(num_heads=2))
    config = TransformerConfig(
        encoder=stack if kind != "decoder" else None,
        decoder=stack if kind != "encoder" else None,
        vocab_size=tokenizer.vocab_size,
        max_seq_len=LONGEST,
        init_std=0.3,
    )
    return Transformer(config).eval()


@torch.no_grad()
def alone(transformer: Transformer, pair: Pair, bidirectional: bool) -> tuple[float, bool]:
    given_ids, asked = list(pair[0]), list(pair[1])
    if transformer.encoder is not None:
        source = torch.tensor([given_ids[-LONGEST:]])
        logits = transformer(torch.tensor([[0, *asked[:-1]]]), source_BS=source)[0]
    else:
        read = [*given_ids, *asked][-LONGEST - 1 : -1]
        count = len(read) + 1 - len(asked)
        prefix = torch.arange(len(read))[None] < count if bidirectional else None
        logits = transformer(torch.tensor([read]), prefix_BT=prefix)[0, -len(asked) :]
    rows = logits.double().log_softmax(-1)
    chosen = torch.tensor(asked)
    nats = float(rows.gather(1, chosen[:, None]).sum())
    return nats, bool((rows.argmax(-1) == chosen).all())


@pytest.mark.parametrize("batch_tokens", [1, 16, 4096])
@pytest.mark.parametrize("kind", ["decoder", "both", "prefix"])
def test_many_pairs_are_judged_as_each_alone(kind: str, batch_tokens: int) -> None:
    transformer = net("decoder" if kind == "prefix" else kind)
    with torch.no_grad():  # one pair whose answer is the likeliest
        likeliest = int(transformer(torch.tensor([[0]]), **source(kind))[0, 0].argmax())
    pairs = [*PAIRS, ([0] if kind != "both" else [4], [likeliest])]
    told: list[int] = []
    found = likelihoods(
        transformer, pairs, bidirectional=kind == "prefix", batch_tokens=batch_tokens,
        on_batch=told.append,
    )  # fmt: skip
    for pair, each in zip(pairs, found, strict=True):
        nats, is_greedy = alone(transformer, pair, kind == "prefix")
        assert each.nats == pytest.approx(nats, abs=1e-4)
        assert each.is_greedy == is_greedy
    assert found[-1].is_greedy
    assert sum(told) == len(pairs)


def source(kind: str) -> dict[str, torch.Tensor]:
    return {"source_BS": torch.tensor([[4]])} if kind == "both" else {}


def test_pairs_that_read_the_same_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    transformer = net("decoder")
    read: list[int] = []
    hidden = transformer.hidden

    def counted(tokens_BT: torch.Tensor, **others: object) -> torch.Tensor:
        read.append(len(tokens_BT))
        return hidden(tokens_BT, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(transformer, "hidden", counted)
    likelihoods(transformer, [([1, 2], [each]) for each in range(50)])
    assert read == [1]


@pytest.mark.parametrize(
    ("kind", "pair", "match"),
    [
        ("encoder", ([1], [2]), "is an encoder"),
        ("decoder", ([], [2]), "no tokens on one side"),
        ("decoder", ([1], []), "no tokens on one side"),
        ("decoder", ([1], [2] * (LONGEST + 1)), r"13 tokens is asked for, more than max_seq_len"),
    ],
)
def test_what_has_no_likelihood_is_refused(kind: str, pair: Pair, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        likelihoods(net(kind), [pair])


@given(st.integers(0, 60), st.integers(2, 12), st.integers(1, 12))
def test_windows_ask_for_every_token_but_the_first_once(
    length: int, longest: int, stride: int
) -> None:
    stride = min(stride, longest)
    pairs = windows(range(length), longest, stride)
    assert [id for _, asked in pairs for id in asked] == list(range(1, length))
    for number, (before, asked) in enumerate(pairs):
        assert list(before) == list(range(asked[0] - len(before), asked[0]))
        assert len(before) + len(asked) <= longest + 1
        if number:  # what stands before each is what the context holds
            assert len(before) >= longest + 1 - stride


def test_a_text_that_fits_has_the_likelihood_of_one_window() -> None:
    transformer, text = net("decoder"), "hello\na b\n"
    quality = text_quality(transformer, tokenizer, [text])
    ids = tokenizer.encode(text)
    nats, _ = alone(transformer, (ids[:1], ids[1:]), False)
    assert quality.nats == pytest.approx(-nats, abs=1e-4)
    assert (quality.tokens, quality.num_bytes, quality.words) == (9, 9, 5)
    assert quality.bits_per_byte == pytest.approx(-nats / 9 / 0.6931472, abs=1e-4)


def test_bos_lets_the_first_token_be_judged() -> None:
    transformer = net("decoder")
    form = PromptFormat(add_bos=True)
    quality = text_quality(transformer, tokenizer, ["hello"], prompt_format=form)
    nats, _ = alone(transformer, ([tokenizer.bos_id], tokenizer.encode("hello")), False)
    assert quality.nats == pytest.approx(-nats, abs=1e-4)
    assert (quality.tokens, quality.num_bytes) == (5, 5)


@settings(max_examples=5, deadline=None)
@given(st.integers(1, LONGEST))
def test_texts_do_not_see_one_another(stride: int) -> None:
    transformer = net("decoder")
    both = text_quality(transformer, tokenizer, ["a long text of words", "other"], stride=stride)
    parts = [
        text_quality(transformer, tokenizer, [text], stride=stride)
        for text in ("a long text of words", "other")
    ]
    assert both.nats == pytest.approx(sum(part.nats for part in parts), abs=1e-4)


@pytest.mark.parametrize("stride", [0, LONGEST + 1])
def test_a_stride_that_does_not_fit_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match="stride"):
        text_quality(net("decoder"), tokenizer, ["hello"], stride=stride)


def test_texts_without_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="fewer than two tokens"):
        text_quality(net("decoder"), tokenizer, ["a", ""])
