"""The parameters of real networks, sorted by kind and told by name."""

import pytest

from gpt4o_lit.model import (
    AttentionConfig,
    FeedForwardConfig,
    NormConfig,
    PositionConfig,
    StackConfig,
    Transformer,
    TransformerConfig,
)
from gpt4o_lit.optim import AdamW, Muon
from gpt4o_lit.optim.groups import parameter_kinds, row_parts


def stack(position: str, norm: str = "rms", activation: str = "swiglu", **fields) -> StackConfig:
    return StackConfig(
        num_layers=1,
        dim=16,
        attention=AttentionConfig(num_heads=4, num_kv_heads=2),
        feed_forward=FeedForwardConfig(ffn_dim=24, activation=activation),
        norm=NormConfig(kind=norm, placement="post" if "embedding_norm" in fields else "pre"),
        position=PositionConfig(kind=position),
        **fields,
    )


def network(**fields) -> Transformer:
    return Transformer(TransformerConfig(vocab_size=11, max_seq_len=8, **fields))


BERT = {"embedding_norm": True, "num_token_types": 2}
NETWORKS = {
    "gpt2": lambda: network(decoder=stack("learned", "layer", "gelu_tanh")),
    "llama": lambda: network(decoder=stack("rotary"), tie_embeddings=False),
    "t5": lambda: network(
        encoder=stack("relative", activation="relu"), decoder=stack("relative", activation="relu")
    ),
    "bert": lambda: network(
        encoder=stack("learned", "layer", "gelu", **BERT), head_transform=True, head_bias=True
    ),
}
ATTENTION = {"attention.qkv.weight", "attention.output.weight"}
CROSS = {"cross_attention.q.weight", "cross_attention.kv.weight", "cross_attention.output.weight"}
PLAIN = {"feed_forward.up.weight", "feed_forward.down.weight"}
GATED = {"feed_forward.gate_up.weight", "feed_forward.down.weight"}


def of_block(stack: str, names: set[str]) -> set[str]:
    return {f"{stack}.blocks.0.{name}" for name in names}


EMBEDDINGS = {
    "gpt2": {"tokens.weight", "decoder.positions.weight"},
    "llama": {"tokens.weight"},
    "t5": {"tokens.weight", "encoder.bias.weight", "decoder.bias.weight"},
    "bert": {"tokens.weight", "encoder.positions.weight", "encoder.token_types.weight"},
}
MATRICES = {
    "gpt2": of_block("decoder", ATTENTION | PLAIN),
    "llama": of_block("decoder", ATTENTION | GATED),
    "t5": of_block("encoder", ATTENTION | PLAIN) | of_block("decoder", ATTENTION | CROSS | PLAIN),
    "bert": of_block("encoder", ATTENTION | PLAIN),
}
HEADS = {"gpt2": set(), "llama": {"head.weight"}, "t5": set(), "bert": {"head.transform.weight"}}


def named(net: Transformer, params) -> set[str]:
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    return {names[id(parameter)] for parameter in params}


@pytest.mark.parametrize("kind", NETWORKS)
def test_tables_matrices_and_heads_of_a_network_are_told_apart(kind: str) -> None:
    net = NETWORKS[kind]()
    kinds = parameter_kinds(net)
    assert named(net, kinds.embeddings) == EMBEDDINGS[kind]
    assert named(net, kinds.matrices) == MATRICES[kind]
    assert named(net, kinds.head) == HEADS[kind]
    rest = set(dict(net.named_parameters())) - EMBEDDINGS[kind] - MATRICES[kind] - HEADS[kind]
    assert named(net, kinds.vectors) == rest
    assert all(parameter.ndim == 1 for parameter in kinds.vectors)


@pytest.mark.parametrize("kind", NETWORKS)
def test_muon_moves_no_table_and_tables_need_not_decay(kind: str) -> None:
    net = NETWORKS[kind]()
    groups = Muon(decay_embeddings=False).build(net).param_groups
    moved = [p for group in groups if group["algorithm"] == "muon" for p in group["params"]]
    assert named(net, moved) == MATRICES[kind]
    for recipe in (Muon(decay_embeddings=False), AdamW(decay_embeddings=False)):
        groups = recipe.build(net).param_groups
        decaying = [p for group in groups if group["weight_decay"] for p in group["params"]]
        assert named(net, decaying) == MATRICES[kind] | HEADS[kind]


def test_every_fused_weight_of_an_encoder_decoder_says_what_it_holds() -> None:
    """Head size 4, 4 query heads and 2 key heads, 24 features inside the feed-forward part."""
    net = network(encoder=stack("rotary"), decoder=stack("rotary"))
    parts = row_parts(net)
    found = {
        name: parts[id(weight)] for name, weight in net.named_parameters() if id(weight) in parts
    }
    own = {"attention.qkv.weight": (16, 8, 8), "feed_forward.gate_up.weight": (24, 24)}
    expected = {
        f"{stack}.blocks.0.{k}": v for stack in ("encoder", "decoder") for k, v in own.items()
    }
    assert found == expected | {"decoder.blocks.0.cross_attention.kv.weight": (8, 8)}
    for name, rows in found.items():
        assert sum(rows) == net.get_parameter(name).shape[0]
