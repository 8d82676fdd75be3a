"""A look inside: what is shown is what the network computed."""

import pytest
import torch

from gpt4o_lit.explanation import attribute, explain, logit_lens, record, rollout
from gpt4o_lit.generation import PromptFormat
from gpt4o_lit.model import (
    AttentionConfig,
    NormConfig,
    PositionConfig,
    StackConfig,
    Transformer,
    TransformerConfig,
)
from gpt4o_lit.tokenizer import ByteTokenizer

tokenizer = ByteTokenizer()


def net(kind: str = "decoder", position: str = "rotary", **attention: object) -> Transformer:
    stack = StackConfig(
        num_layers=3,
        dim=32,
        attention=AttentionConfig(num_heads=4, **attention),  # type: ignore[arg-type]
        position=PositionConfig(kind=position),  # type: ignore[arg-type]
    )
    config = TransformerConfig(
        encoder=stack if kind != "decoder" else None,
        decoder=stack if kind != "encoder" else None,
        vocab_size=tokenizer.vocab_size,
        max_seq_len=64,
        init_std=0.2,
    )
    return Transformer(config).eval()


def inputs(kind: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    tokens = torch.randint(0, 256, (1, 9))
    return tokens, torch.randint(0, 256, (1, 7)) if kind == "both" else None


@pytest.mark.parametrize("kind", ["decoder", "encoder", "both"])
@pytest.mark.parametrize(
    ("position", "attention"),
    [
        ("rotary", {}),
        ("relative", {"kernel": "eager"}),
        ("alibi", {"num_kv_heads": 2, "window": 4}),
        ("rotary", {"qk_norm": True, "kernel": "flex"}),
    ],
)
def test_the_weights_are_those_that_the_network_attends_by(
    kind: str, position: str, attention: dict[str, object]
) -> None:
    """Rows add up to one, nobody looks ahead, and weights times values give each head's output."""
    transformer = net(kind, position, **attention)
    tokens, source = inputs(kind)
    outputs: dict[tuple[str, int], torch.Tensor] = {}
    for name in ("encoder", "decoder"):
        for layer, block in enumerate(getattr(getattr(transformer, name), "blocks", [])):
            block.attention.output.register_forward_pre_hook(
                lambda _, given, key=(name, layer): outputs.__setitem__(key, given[0])
            )
    values: dict[tuple[str, int], torch.Tensor] = {}
    for name in ("encoder", "decoder"):
        for layer, block in enumerate(getattr(getattr(transformer, name), "blocks", [])):
            block.attention.register_forward_pre_hook(
                lambda module, given, key=(name, layer): values.__setitem__(
                    key, module.queries_keys_values(given[0], given[2])[2]
                )
            )
    found = record(transformer, tokens, source)
    with torch.no_grad():
        torch.testing.assert_close(
            found.logits_TV, transformer(tokens, source_BS=source)[0], atol=1e-5, rtol=1e-5
        )
    for name, weights in found.attention.items():
        rows = weights.sum(-1)
        torch.testing.assert_close(rows, torch.ones_like(rows))
        if name == "decoder":
            assert weights.triu(1).abs().max() == 0
        if name == "cross":
            assert weights.shape == (3, 4, 9, 7)
            continue
        for layer in range(3):
            shared = values[name, layer].repeat_interleave(
                4 // transformer.config.output_stack.attention.kv_heads, dim=2
            )
            mixed = torch.einsum("nts,bsnh->btnh", weights[layer], shared).flatten(2)
            torch.testing.assert_close(mixed, outputs[name, layer], atol=1e-5, rtol=1e-4)


def test_a_record_leaves_the_network_as_it_was() -> None:
    transformer = net(kernel="flex")
    config = transformer.decoder.config  # type: ignore[union-attr]
    record(transformer, *inputs("decoder"))
    for part in transformer.modules():
        assert not part._forward_pre_hooks
        assert not part._forward_hooks
    assert transformer.decoder.config is config  # type: ignore[union-attr]
    assert transformer.decoder.blocks[0].attention.config.kernel == "flex"  # type: ignore[union-attr,index]


def test_cross_attention_mixes_the_source() -> None:
    transformer = net("both")
    tokens, source = inputs("both")
    assert source is not None
    mixed: list[torch.Tensor] = []
    block = transformer.decoder.blocks[1]  # type: ignore[union-attr,index]
    block.cross_attention.output.register_forward_pre_hook(lambda _, given: mixed.append(given[0]))  # type: ignore[union-attr]
    found = record(transformer, tokens, source)
    with torch.no_grad():
        _, values = block.cross_attention.keys_values(transformer.encode(source), None)  # type: ignore[union-attr,operator]
    expected = torch.einsum("nts,bsnh->btnh", found.attention["cross"][1], values).flatten(2)
    torch.testing.assert_close(expected, mixed[0], atol=1e-5, rtol=1e-4)


def test_rollout_multiplies_layers_with_their_residual_sums() -> None:
    weights = torch.rand(3, 2, 5, 5).softmax(-1)
    expected = torch.eye(5)
    for layer in range(3):
        mean = (weights[layer, 0] + weights[layer, 1]) / 2
        expected = (0.5 * mean + 0.5 * torch.eye(5)) @ expected
    torch.testing.assert_close(rollout(weights), expected)
    torch.testing.assert_close(rollout(weights).sum(-1), torch.ones(5))


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_the_last_layer_of_the_lens_is_the_answer(placement: str) -> None:
    stack = StackConfig(
        num_layers=2, dim=16, attention=AttentionConfig(num_heads=2),
        norm=NormConfig(placement=placement),  # type: ignore[arg-type]
    )  # fmt: skip
    config = TransformerConfig(decoder=stack, vocab_size=tokenizer.vocab_size, max_seq_len=16)
    transformer = Transformer(config).eval()
    found = record(transformer, torch.tensor([[3, 4, 5]]))
    layers = logit_lens(transformer, tokenizer, found, count=2)
    assert [len(layer) for layer in layers] == [3, 3, 3]
    likely = found.logits_TV.softmax(-1)
    for place, guesses in enumerate(layers[-1]):
        best = likely[place].topk(2).values.tolist()
        assert [guess.probability for guess in guesses] == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize("kind", ["decoder", "encoder", "both", "prefix"])
def test_attributions_add_up_to_what_the_text_changed(kind: str) -> None:
    """Completeness, the law of integrated gradients."""
    pytest.importorskip("captum", reason="the extra `explain` is not installed")
    transformer = net("decoder" if kind == "prefix" else kind)
    tokens, source = inputs(kind)
    spoken = attribute(
        transformer, tokens, source, position=4, target_id=65, num_steps=200,
        bidirectional=kind == "prefix",
    )  # fmt: skip
    prefix = torch.ones_like(tokens, dtype=torch.bool) if kind == "prefix" else None

    def score(ids: torch.Tensor, read: torch.Tensor | None) -> float:
        with torch.no_grad():
            logits = transformer(ids, source_BS=read, prefix_BT=prefix)
        return float(logits[0, 4].log_softmax(-1)[65])

    nothing = score(torch.zeros_like(tokens), None if source is None else torch.zeros_like(source))
    assert spoken.difference == pytest.approx(score(tokens, source) - nothing, abs=1e-4)
    assert abs(spoken.missing) < 0.02 * max(1.0, abs(spoken.difference))
    if kind in ("decoder", "both"):
        assert spoken.tokens_T[5:].abs().max() == 0  # the future says nothing
    if kind == "prefix":
        assert spoken.tokens_T[5:].abs().max() > 0


def test_signs_are_shown_where_they_are_complete() -> None:
    told = explain(net(), tokenizer, "我 a\n", num_steps=0)
    assert told.tokens == ["·", "·", "我", "␣", "a", "⏎"]
    assert told.attribution is None


def test_an_encoder_is_asked_for_its_mask() -> None:
    pytest.importorskip("captum", reason="the extra `explain` is not installed")
    told = explain(net("encoder"), tokenizer, "ab<mask>d", num_steps=4)
    assert told.tokens == ["a", "b", "<mask>", "d"]
    assert told.attribution is not None
    assert told.attribution.position == 2


def test_an_encoder_decoder_reads_the_answer_or_writes_one() -> None:
    transformer = net("both")
    told = explain(transformer, tokenizer, "abc", answer="xy", num_steps=0)
    assert (told.source, told.tokens) == (["a", "b", "c"], ["<pad>", "x", "y"])
    assert told.record.attention["cross"].shape == (3, 4, 3, 3)
    written = explain(transformer, tokenizer, "abc", num_steps=0)
    assert written.tokens[0] == "<pad>"
    logits = written.record.logits_TV[:-1, : tokenizer.vocab_size]
    again = explain(transformer, tokenizer, "abc", num_steps=0)
    assert again.tokens == written.tokens
    assert len(logits) == len(written.tokens) - 1


def test_a_prefix_sees_both_ways() -> None:
    form = PromptFormat(bidirectional=True)
    told = explain(net(), tokenizer, "abcd", prompt_format=form, num_steps=0)
    assert told.record.attention["decoder"].triu(1).abs().max() > 0


@pytest.mark.parametrize(
    ("kind", "text", "answer", "match"),
    [
        ("decoder", "", None, "the text has no token"),
        ("decoder", "a" * 65, None, r"65 tokens, more than max_seq_len \(64\)"),
        ("decoder", "a", "b", "an answer is for an encoder-decoder"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    kind: str, text: str, answer: str | None, match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        explain(net(kind), tokenizer, text, answer=answer)
