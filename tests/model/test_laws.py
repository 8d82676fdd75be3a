"""The laws that every network keeps, whatever its parts."""

from dataclasses import replace

import pytest
import torch

from gpt4o_lit.model import (
    FeedForwardConfig,
    KVCache,
    NormConfig,
    Transformer,
    TransformerConfig,
    count_parameters,
)
from gpt4o_lit.model.mask import flex_mask
from gpt4o_lit.model.position import inverse_frequencies
from tests.model.conftest import POSITIONS, VOCAB, network, stack

HEADS = ({}, {"num_kv_heads": 2}, {"num_kv_heads": 1, "window": 3, "qk_norm": True})
KINDS = ("decoder", "encoder_decoder")


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("heads", HEADS, ids=str)
def test_future_tokens_change_nothing_in_the_past(position, heads, tokens):
    net = network("decoder", position, attention=heads)
    changed = tokens.clone()
    changed[:, 8] = (changed[:, 8] + 1) % VOCAB
    before, after = net(tokens), net(changed)
    assert_close(before[:, :8], after[:, :8])
    assert (before[:, 8] - after[:, 8]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("heads", HEADS, ids=str)
def test_cached_decoding_equals_full_forward(kind, position, heads, tokens, source):
    net = network(kind, position, attention=heads)
    source = source if kind == "encoder_decoder" else None
    cache = KVCache(net.config, 2, 12)
    parts = [net(tokens[:, :5], source_BS=source, cache=cache)]
    parts += [net(tokens[:, i : i + 1], cache=cache) for i in (5, 6)]
    parts += [net(tokens[:, 7:], cache=cache)]
    assert_close(torch.cat(parts, 1), net(tokens, source_BS=source))


@pytest.mark.parametrize("position", POSITIONS)
def test_cached_rows_of_unequal_length_equal_each_row_alone(position, tokens):
    net = network("decoder", position)
    documents = torch.zeros_like(tokens[:, :5])
    documents[1, 3:] = -1
    cache = KVCache(net.config, 2, 12)
    net(tokens[:, :5], documents_BT=documents, cache=cache)
    together = net(tokens[:, 5:7], cache=cache)
    assert_close(together[0], net(tokens[:1, :7])[0, 5:])
    alone = torch.cat((tokens[1:, :3], tokens[1:, 5:7]), 1)
    assert_close(together[1], net(alone)[0, 3:])


@pytest.mark.parametrize("kind", ["decoder", "encoder", "encoder_decoder"])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("window", [None, 3])
def test_packed_documents_equal_separate_documents(kind, position, window, tokens, source):
    net = network(kind, position, attention={"window": window})
    documents = torch.tensor([[0] * 5 + [1] * 7] * 2)
    if kind == "encoder_decoder":
        of_source = torch.tensor([[0] * 3 + [1] * 4] * 2)
        packed = net(
            tokens, source_BS=source, documents_BT=documents, source_documents_BS=of_source
        )
        separate = [
            net(tokens[:, :5], source_BS=source[:, :3]),
            net(tokens[:, 5:], source_BS=source[:, 3:]),
        ]
    else:
        packed = net(tokens, documents_BT=documents)
        separate = [net(tokens[:, :5]), net(tokens[:, 5:])]
    assert_close(packed, torch.cat(separate, 1))


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_padding_is_seen_by_nobody(kind, tokens):
    net = network(kind)
    documents = torch.zeros_like(tokens)
    documents[:, 9:] = -1
    assert_close(net(tokens, documents_BT=documents)[:, :9], net(tokens[:, :9]))


@pytest.mark.parametrize("target_documents", [None, 0])
def test_padding_of_a_source_is_seen_by_nobody(target_documents, tokens, source):
    net = network("encoder_decoder")
    of_source = torch.zeros_like(source)
    of_source[:, 5:] = -1
    documents = None if target_documents is None else torch.zeros_like(tokens)
    padded = net(tokens, source_BS=source, documents_BT=documents, source_documents_BS=of_source)
    assert_close(padded, net(tokens, source_BS=source[:, :5]))


@pytest.mark.parametrize("kernel", ["eager", "flex"])
@pytest.mark.parametrize("position", ["rotary", "relative", "alibi"])
@pytest.mark.parametrize("heads", HEADS[::2], ids=str)
@pytest.mark.parametrize(
    ("kind", "packed"),
    [
        ("decoder", False),
        ("decoder", True),
        ("decoder", "prefix"),
        ("encoder", False),
        ("encoder", True),
    ],
)
def test_kernels_agree(kernel, kind, position, heads, packed, tokens):
    """Where somebody looks: the last two places of the first row are padding."""
    documents = torch.tensor([[0] * 5 + [1] * 5 + [-1] * 2, [0] * 5 + [1] * 7])
    calls = {"documents_BT": documents if packed else None}
    if packed == "prefix":
        calls["prefix_BT"] = torch.arange(12).expand(2, -1) % 5 < 2
    torch.manual_seed(1)
    reference = network(kind, position, attention=heads)
    torch.manual_seed(1)
    other = network(kind, position, attention={**heads, "kernel": kernel})
    read = documents >= 0 if packed else slice(None)
    with torch.no_grad():
        found = other(tokens, **calls)
        assert found.isfinite().all()
        assert_close(found[read], reference(tokens, **calls)[read])


def test_flex_leaves_out_the_blocks_of_other_documents():
    documents = torch.arange(4).repeat_interleave(128)[None]
    blocks = flex_mask(512, documents.device, causal=True, documents_BT=documents).blocks
    assert torch.equal(blocks.to_dense()[0, 0], torch.eye(4, dtype=torch.int32))
    assert flex_mask(512, documents.device, causal=True).blocks.sparsity() == 37.5


def test_as_many_key_heads_as_query_heads_is_multi_head_attention(tokens):
    torch.manual_seed(1)
    plain = network("decoder")
    torch.manual_seed(1)
    grouped = network("decoder", attention={"num_kv_heads": 4})
    assert_close(grouped(tokens), plain(tokens))


def test_a_window_forgets_what_is_further_back_than_its_layers_reach(tokens):
    net = network("decoder", attention={"window": 3})
    changed = tokens.clone()
    changed[:, 0] = (changed[:, 0] + 1) % VOCAB
    reach = 2 * (3 - 1)
    assert_close(net(tokens)[:, reach + 1 :], net(changed)[:, reach + 1 :])
    assert (net(tokens)[:, reach] - net(changed)[:, reach]).abs().max() > 1e-6


def test_a_prefix_is_seen_by_all_of_its_document_and_by_no_other(tokens):
    net = network("decoder")
    prefix = torch.zeros_like(tokens, dtype=torch.bool)
    prefix[:, :4] = True
    documents = torch.tensor([[0] * 6 + [1] * 6] * 2)
    changed = tokens.clone()
    changed[:, 3] = (changed[:, 3] + 1) % VOCAB
    before = net(tokens, documents_BT=documents, prefix_BT=prefix)
    after = net(changed, documents_BT=documents, prefix_BT=prefix)
    assert (before[:, 0] - after[:, 0]).abs().max() > 1e-4
    assert_close(before[:, 6:], after[:, 6:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("position", ["rotary", "relative"])
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_recomputing_activations_changes_no_gradient(kind, position, rate, tokens, source):
    """With dropout the recomputation tosses the same coins again, and moves no later toss."""
    source = source if kind == "encoder_decoder" else None
    gradients, later = [], []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        parts = {"feed_forward": FeedForwardConfig(dropout=rate), "attention": {"dropout": rate}}
        net = network(kind, position, checkpointing=checkpointing, dropout=rate, **parts).train()
        net(tokens, source_BS=source).square().mean().backward()
        gradients.append({name: p.grad for name, p in net.named_parameters()})
        later.append(torch.rand(3))
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)
    assert torch.equal(*later)
    if position == "relative":
        assert gradients[1]["decoder.bias.weight"].any()


@pytest.mark.parametrize("placement", ["self", "cross"])
def test_qk_norm_makes_scores_blind_to_the_size_of_queries_and_keys(placement, tokens, source):
    """Ten times the query weights change nothing, for their norm is taken out again."""
    net = network("encoder_decoder", attention={"qk_norm": True})
    before = net(tokens, source_BS=source)
    with torch.no_grad():
        for block in net.decoder.blocks:
            if placement == "cross":
                block.cross_attention.q.weight.mul_(10)
                block.cross_attention.kv.weight.chunk(2)[0].mul_(10)
            else:
                block.attention.qkv.weight.chunk(3)[0].mul_(10)
    torch.testing.assert_close(net(tokens, source_BS=source), before, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", ["decoder", "encoder", "encoder_decoder"])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("norm", ["rms", "layer"])
@pytest.mark.parametrize("attention", [{"qkv_bias": True}, {"qk_norm": True}], ids=str)
def test_counted_parameters_are_those_of_the_network(kind, position, norm, attention):
    net = network(kind, position, norm=NormConfig(kind=norm), attention=attention)
    assert count_parameters(net.config)["total"] == sum(p.numel() for p in net.parameters())


def test_a_config_survives_plain_data():
    config = TransformerConfig(
        encoder=stack("relative"), decoder=stack("alibi"), vocab_size=9, logit_softcap=30.0
    )
    assert TransformerConfig.from_dict(config.to_dict()) == config


def test_compiling_the_stacks_changes_neither_outputs_nor_keys(tokens):
    net = network("decoder")
    keys, expected = list(net.state_dict()), net(tokens)
    net.decoder.compile(backend="aot_eager")
    assert_close(net(tokens), expected)
    assert list(net.state_dict()) == keys


def test_a_network_built_without_memory_loads_weights(tokens):
    net = network("decoder")
    with torch.device("meta"):
        empty = Transformer(net.config)
    empty.load_state_dict(net.state_dict(), assign=True)
    empty.decoder.rotary.to_empty(device="cpu").reset_buffers()
    expected = inverse_frequencies(net.config.decoder.position, net.config.decoder.head_dim)
    assert_close(empty.decoder.rotary.values, expected)
    assert_close(empty.eval()(tokens), net(tokens))


def test_softcap_bounds_the_logits(tokens):
    net = network("decoder")
    capped = Transformer(replace(net.config, logit_softcap=0.5))
    capped.load_state_dict(net.state_dict())
    assert_close(capped.eval()(tokens), 0.5 * torch.tanh(net(tokens) / 0.5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n, t, s: n(t.repeat(1, 6)), r"72 tokens, more than max_seq_len \(64\)"),
        (lambda n, t, s: n(t, source_BS=s), "no encoder-decoder; leave it out"),
        (lambda n, t, s: n(t, cache=KVCache(n.config, 2, 4)), "room for 4 tokens"),
    ],
)
def test_a_wrong_call_says_what_to_mend(call, message, tokens, source):
    with pytest.raises(ValueError, match=message):
        call(network("decoder"), tokens, source)


def test_an_encoder_decoder_asks_for_its_source(tokens):
    with pytest.raises(ValueError, match="needs source_BS"):
        network("encoder_decoder")(tokens)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention": {"num_kv_heads": 3}}, "must be a multiple of num_kv_heads"),
        ({"attention": {"kernel": "flash"}}, "kernel .* is unknown; choose from"),
        ({"dropout": 1.0}, "must be at least 0 and below 1"),
    ],
)
def test_a_wrong_config_says_what_to_mend(fields, message):
    with pytest.raises(ValueError, match=message):
        stack(**fields)


def test_a_network_needs_a_stack() -> None:
    with pytest.raises(ValueError, match="encoder and decoder are both missing"):
        Transformer(TransformerConfig(vocab_size=8))
