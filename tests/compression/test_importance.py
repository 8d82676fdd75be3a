"""Scores of importance, by the definition; and who goes by them."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from gpt4o_lit.compression import Cut, Importance, choose, cut_, measure_importance
from gpt4o_lit.compression.importance import By, Loss
from gpt4o_lit.model import NormConfig, Transformer
from tests.model.conftest import VOCAB, network

KINDS = ["decoder", "encoder", "encoder_decoder"]


def loss_of(net: Transformer, tokens: Tensor) -> Tensor:
    both = net.encoder is not None and net.decoder is not None
    logits = net(tokens, source_BS=tokens.flip(1)) if both else net(tokens)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())


def losses_of(net: Transformer, count: int = 2) -> list[Loss]:
    batches = torch.randint(0, VOCAB, (count, 3, 9))
    return [partial(loss_of, net, batch) for batch in batches]


@pytest.mark.parametrize("kind", KINDS)
def test_taylor_scores_are_slopes_of_the_loss_along_gates(kind: str) -> None:
    """A gate of 1 at each head, channel or feature: what does the loss say to closing it a bit?"""
    net = network(kind, attention={"num_kv_heads": 2}).double()
    losses = losses_of(net)
    scores = measure_importance(net, losses, "taylor")
    for name, expected in (*scores.heads.items(), *scores.channels.items()):
        layer = net.get_submodule(f"{name}.output" if name in scores.heads else f"{name}.down")
        total = torch.zeros(len(expected), dtype=torch.float64)
        for loss in losses:
            gates = torch.ones(len(expected), dtype=torch.float64, requires_grad=True)
            by = gates.repeat_interleave(layer.weight.shape[1] // len(expected))  # type: ignore
            handle = layer.register_forward_pre_hook(lambda _, args, by=by: (args[0] * by,))
            total += torch.autograd.grad(loss(), gates)[0].abs()
            handle.remove()
        torch.testing.assert_close(expected.double(), total, atol=1e-6, rtol=1e-4)


def test_taylor_scores_of_features_are_of_all_that_reads_or_gives_them() -> None:
    net = network("decoder", norm=NormConfig(eps=1e-6)).double()
    losses = losses_of(net)
    scores = measure_importance(net, losses, "taylor")
    total = torch.zeros(32, dtype=torch.float64)
    weights = dict(net.named_parameters())
    for loss in losses:
        grads = dict(zip(weights, torch.autograd.grad(loss(), list(weights.values())), strict=True))
        slopes = torch.zeros(32, dtype=torch.float64)
        for name, weight in weights.items():
            product = (weight * grads[name]).detach()
            if name.endswith("norm.weight"):
                slopes += product
            elif name.endswith(("output.weight", "down.weight")):
                slopes += product.sum(1)  # they give features
            else:
                slopes += product.sum(0)
        total += slopes.abs()
    torch.testing.assert_close(scores.features.double(), total, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_activation_scores_are_sizes_of_what_is_given(kind: str) -> None:
    net = network(kind)
    losses = losses_of(net)
    scores = measure_importance(net, losses, "activation")
    seen: dict[str, list[Tensor]] = {}
    names = [f"{name}.output" for name in scores.heads] + [f"{n}.down" for n in scores.channels]
    handles = [
        net.get_submodule(name).register_forward_pre_hook(
            lambda _, args, to=seen.setdefault(name, []): to.append(args[0])  # noqa: B008
        )
        for name in names
    ]
    with torch.no_grad():
        for loss in losses:
            loss()
    for handle in handles:
        handle.remove()
    for name, theirs in scores.heads.items():
        heads = torch.cat(seen[f"{name}.output"]).view(-1, 4, 8)
        torch.testing.assert_close(theirs, heads.norm(dim=-1).sum(0), atol=1e-3, rtol=1e-5)
    for name, theirs in scores.channels.items():
        channels = torch.cat(seen[f"{name}.down"]).flatten(0, 1)
        torch.testing.assert_close(theirs, channels.abs().sum(0), atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("by", ["activation", "taylor"])
def test_a_block_that_does_nothing_has_no_influence(by: By) -> None:
    net = network("decoder")
    first = net.decoder.blocks[0]  # type: ignore[union-attr]
    for part in (first.attention.output, first.feed_forward.down):  # type: ignore[union-attr]
        part.weight.data.zero_()  # type: ignore[union-attr, operator]
    scores = measure_importance(net, losses_of(net), by).blocks["decoder"]
    assert scores[0] == pytest.approx(0, abs=1e-4)
    assert scores[1] > 1
    kept = choose(
        measure_importance(net, losses_of(net), by), net.config, net.config, Cut(blocks=0.5)
    )
    assert kept.blocks["decoder"].tolist() == [1]


def scores_for(net: Transformer) -> Importance:
    return measure_importance(net, losses_of(net), "activation")


@pytest.mark.parametrize(
    ("attention", "cut", "heads", "kv_heads"),
    [
        ({}, {"heads": 0.25}, 3, 3),
        ({}, {"heads": 0.5}, 2, 2),
        ({"num_kv_heads": 2}, {"heads": 0.5}, 2, 2),
        ({"num_kv_heads": 2}, {"kv_groups": 0.5}, 2, 1),
        ({"num_kv_heads": 1}, {"heads": 0.25}, 3, 1),
        ({"num_kv_heads": 2}, {"kv_groups": 0.5, "heads": 0.5}, 1, 1),
    ],
)
def test_heads_and_groups_go_as_the_shares_say(
    attention: dict[str, Any], cut: dict[str, float], heads: int, kv_heads: int
) -> None:
    net = network("encoder_decoder", attention=attention)
    scores = scores_for(net)
    kept = choose(scores, net.config, net.config, Cut(**cut))  # type: ignore[arg-type]
    groups = attention.get("num_kv_heads", 4)
    for name, kept_heads in kept.heads.items():
        assert len(kept_heads) == heads
        assert len(kept.kv_heads[name]) == kv_heads
        assert set((kept_heads // (4 // groups)).tolist()) == set(kept.kv_heads[name].tolist())
        if groups == 4:
            gone = sorted(set(range(4)) - set(kept_heads.tolist()))
            assert scores.heads[name][gone].max() <= scores.heads[name][kept_heads].min()
    cut_(net, kept)
    assert net.config.output_stack.attention.num_heads == heads
    assert net.config.output_stack.attention.kv_heads == kv_heads
    loss_of(net, torch.randint(0, VOCAB, (1, 5))).backward()


def test_relative_positions_keep_the_same_heads_in_all_blocks() -> None:
    net = network("encoder_decoder", "relative")
    kept = choose(scores_for(net), net.config, net.config, Cut(heads=0.5))
    for side in ("encoder", "decoder"):
        own = [
            tuple(h.tolist())
            for n, h in kept.heads.items()
            if n.startswith(side) and "cross" not in n
        ]
        assert len(own) == 2
        assert len(set(own)) == 1


def test_parts_are_of_the_dense_network_and_rounded_to_multiples() -> None:
    net = network("decoder")  # 96 channels, 32 features
    dense, cut = net.config, Cut(channels=0.5, width=0.25, multiple_of=8)
    assert dense.output_stack.ffn_dim == 128
    for part, channels, width in ((0.5, 96, 28), (1.0, 64, 24)):
        kept = choose(scores_for(net), net.config, dense, cut.at(part))
        cut_(net, kept)
        assert net.config.output_stack.ffn_dim == channels
        assert net.config.dim in (width, round(width / 8) * 8)
    assert cut.left_of(100, 0.99, 32) == 32
    assert cut.left_of(20, 0.1, 32) == 20


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "nothing is cut; set one of heads, kv_groups"),
        ({"heads": 1.0}, r"heads \(1\.0\) must be at least 0 and below 1"),
        ({"width": -0.1}, r"width \(-0\.1\) must be at least 0"),
        ({"heads": 0.5, "multiple_of": 0}, r"multiple_of \(0\) must be at least 1"),
    ],
)
def test_impossible_shares_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cut(**values)


@pytest.mark.parametrize(
    ("position", "fields", "cut", "message"),
    [
        ("rotary", {}, Cut(kv_groups=0.5), "set heads in its place"),
        ("alibi", {}, Cut(heads=0.5), "with alibi a head is its slope"),
        ("sinusoidal", {}, Cut(width=0.5), "sinusoidal positions are made for all features"),
        ("rotary", {"scale_embedding": True}, Cut(width=0.5), "scale_embedding multiplies"),
    ],
)
def test_cuts_that_change_what_a_network_means_are_refused(
    position: str, fields: dict[str, Any], cut: Cut, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cut.require_fit(network("decoder", position, **fields).config)
