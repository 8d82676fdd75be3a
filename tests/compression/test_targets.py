"""Which matrices are chosen, told by what the layer is."""

from dataclasses import replace

import pytest

from gpt4o_lit.compression import Targets
from gpt4o_lit.model import AttentionConfig, StackConfig, Transformer, TransformerConfig

STACK = StackConfig(num_layers=2, dim=16, attention=AttentionConfig(num_heads=2))
DECODER = TransformerConfig(decoder=STACK, vocab_size=20)


def names(network: Transformer, **choice: tuple[str, ...]) -> list[str]:
    return list(Targets(**choice).weights(network))  # type: ignore[arg-type]


def test_attention_and_feed_forward_are_chosen_by_themselves() -> None:
    parts = ("attention.qkv", "attention.output", "feed_forward.gate_up", "feed_forward.down")
    expected = [f"decoder.blocks.{layer}.{part}" for layer in range(2) for part in parts]
    assert names(Transformer(DECODER)) == expected


def test_both_stacks_and_what_joins_them_are_chosen() -> None:
    chosen = names(Transformer(replace(DECODER, encoder=STACK)))
    assert "encoder.blocks.1.feed_forward.down" in chosen
    assert "decoder.blocks.0.cross_attention.kv" in chosen
    assert not any("norm" in name or "tokens" in name or "head" in name for name in chosen)


def test_a_tied_head_is_the_embeddings() -> None:
    tied = Transformer(DECODER)
    free = Transformer(replace(DECODER, tie_embeddings=False))
    assert names(tied, kinds=("embeddings", "head")) == ["tokens"]
    assert names(free, kinds=("embeddings", "head")) == ["tokens", "head"]
    assert Targets(kinds=("head",)).weights(free)["head"] is free.head.weight


def test_patterns_choose_and_leave_out() -> None:
    network = Transformer(DECODER)
    assert names(network, names=("decoder.blocks.1.*",), but_not=("*.output", "*.down")) == [
        "decoder.blocks.1.attention.qkv",
        "decoder.blocks.1.feed_forward.gate_up",
    ]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"names": ("decoder.block.*",)}, r"matches no layer .* called decoder\.blocks\."),
        ({"but_not": ("*.putput",)}, r"\*\.putput matches no layer"),
        ({"but_not": ("*",)}, "leaves no layer"),
        ({"kinds": ("norm",)}, r"'norm'\) is unknown; choose from attention"),
        ({"kinds": ()}, "kinds is empty"),
    ],
)
def test_a_choice_of_nothing_is_refused(choice: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        names(Transformer(DECODER), **choice)
