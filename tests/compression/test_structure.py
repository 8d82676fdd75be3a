"""What is cut is as good as zeroed, and the rest is a network of its own."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gpt4o_lit.compression import Kept, cut_, cut_state_
from gpt4o_lit.model import AttentionConfig, FeedForwardConfig, NormConfig, Transformer
from gpt4o_lit.model.attention import Attention, CrossAttention
from gpt4o_lit.model.feed_forward import FeedForward, GatedFeedForward
from gpt4o_lit.optim import Adafactor, AdamW, Muon, OptimizerRecipe, refresh_row_parts
from tests.model.conftest import network, tokens

__all__ = ["tokens"]  # a fixture

KINDS = ["decoder", "encoder", "encoder_decoder"]
ATTENTION: list[dict[str, Any]] = [
    {},
    {"num_kv_heads": 2, "qk_norm": True},
    {"qkv_bias": True, "output_bias": True},
]


def run(net: Transformer, tokens: Tensor) -> Tensor:
    both = net.encoder is not None and net.decoder is not None
    with torch.no_grad():
        return net(tokens, source_BS=tokens.flip(1)) if both else net(tokens)  # type: ignore


def modules(net: Transformer, *kinds: type[nn.Module]) -> dict[str, Any]:
    return {name: module for name, module in net.named_modules() if isinstance(module, kinds)}


def assert_whole(net: Transformer) -> None:
    """Its weights are those that its config describes."""
    fresh = Transformer(net.config)
    assert {n: w.shape for n, w in fresh.state_dict().items()} == {
        n: w.shape for n, w in net.state_dict().items()
    }


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("position", ["rotary", "relative", "learned"])
@pytest.mark.parametrize("kind", KINDS)
def test_cut_heads_are_zeroed_heads(
    kind: str, position: str, attention: dict[str, Any], tokens: Tensor
) -> None:
    net = network(kind, position, attention=attention).double()
    heads, kv_heads = {}, {}
    for number, (name, module) in enumerate(modules(net, Attention, CrossAttention).items()):
        groups = module.config.kv_heads
        size = 4 // groups
        kv = torch.randperm(groups)[: groups // 2].sort().values
        if position == "relative" and not isinstance(module, CrossAttention):
            kv = torch.arange(groups // 2)  # biases are of all blocks
        kept = (kv[:, None] * size + torch.arange(size)).flatten()
        heads[name], kv_heads[name] = kept, kv
        gone = torch.ones(4, 8, dtype=torch.bool)
        gone[kept] = False
        module.output.weight.data[:, gone.flatten()] = 0
        assert number < 6
    expected = run(net, tokens)
    cut_(net, Kept(heads=heads, kv_heads=kv_heads))
    torch.testing.assert_close(run(net, tokens), expected, atol=1e-6, rtol=1e-5)
    assert net.config.output_stack.attention.num_heads == 2
    assert net.config.output_stack.head_dim == 8
    assert_whole(net)


@pytest.mark.parametrize("activation", ["swiglu", "gelu"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_cut_channels_are_zeroed_channels(
    kind: str, bias: bool, activation: Any, tokens: Tensor
) -> None:
    feed_forward = FeedForwardConfig(activation=activation, bias=bias, ffn_dim=48)
    net = network(kind, feed_forward=feed_forward).double()
    channels = {}
    for name, module in modules(net, FeedForward, GatedFeedForward).items():
        kept = channels[name] = torch.randperm(48)[:20].sort().values
        gone = torch.ones(48, dtype=torch.bool)
        gone[kept] = False
        module.down.weight.data[:, gone] = 0
    expected = run(net, tokens)
    cut_(net, Kept(channels=channels))
    torch.testing.assert_close(run(net, tokens), expected, atol=1e-6, rtol=1e-5)
    assert net.config.output_stack.ffn_dim == 20
    assert_whole(net)


@pytest.mark.parametrize("kind", KINDS)
def test_cut_blocks_are_passed_by(kind: str, tokens: Tensor) -> None:
    net = network(kind).double()
    for name, module in net.named_modules():
        if name.endswith(("blocks.0.attention", "blocks.0.cross_attention")):
            module.output.weight.data.zero_()
        elif name.endswith("blocks.0.feed_forward"):
            module.down.weight.data.zero_()
    expected = run(net, tokens)
    stacks = ("encoder", "decoder") if kind == "encoder_decoder" else (kind,)
    weights = {id(weight) for weight in net.parameters()}
    cuts = cut_(net, Kept(blocks={stack: torch.tensor([1]) for stack in stacks}))
    torch.testing.assert_close(run(net, tokens), expected, atol=1e-6, rtol=1e-5)
    gone = {id(weight) for weight, axes in cuts.items() if axes is None}
    assert {id(weight) for weight in net.parameters()} == weights - gone
    assert gone
    assert_whole(net)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_cut_features_are_zeroed_features(kind: str, tied: bool, tokens: Tensor) -> None:
    """The norms then divide by the mean of fewer squares, for which their weights make good."""
    net = network(kind, norm=NormConfig(eps=1e-12))
    if not tied:
        net = Transformer(replace(net.config, tie_embeddings=False)).eval()
    kept = torch.randperm(32)[:24].sort().values
    gone = torch.ones(32, dtype=torch.bool)
    gone[kept] = False
    for name, weight in net.named_parameters():
        if name in ("tokens.weight", "head.weight"):
            weight.data[:, gone] = 0
        elif name.endswith(("output.weight", "down.weight")):
            weight.data[gone] = 0
    expected = run(net, tokens)
    cut_(net, Kept(features=kept))
    for name, weight in net.named_parameters():
        if name.endswith("norm.weight"):
            weight.data *= (32 / 24) ** 0.5
    torch.testing.assert_close(run(net, tokens), expected, atol=1e-5, rtol=1e-5)
    assert (net.head.weight is net.tokens.weight) == tied
    assert net.config.dim == 24
    assert_whole(net)


@pytest.mark.parametrize("position", ["learned", "alibi", "none"])
def test_everything_may_be_cut_at_once(position: str, tokens: Tensor) -> None:
    attention = AttentionConfig(num_heads=4, qkv_bias=True)
    net = network(
        "encoder_decoder",
        position,
        attention={"qkv_bias": attention.qkv_bias},
        norm=NormConfig(kind="layer"),
        num_token_types=2,
        embedding_norm=True,
    )
    cut_(net, everything(net, heads=position != "alibi"))
    assert_whole(net)
    assert run(net, tokens).isfinite().all()


@pytest.mark.parametrize("recipe", [AdamW(), Muon(), Adafactor()])
@pytest.mark.parametrize("kind", KINDS)
def test_the_optimizer_goes_on_with_what_is_left(
    recipe: OptimizerRecipe, kind: str, tokens: Tensor
) -> None:
    net = network(kind).train()
    optimizer = recipe.build(net)

    def step() -> None:
        both = {"source_BS": tokens} if kind == "encoder_decoder" else {}
        net(tokens, **both).square().mean().backward()  # type: ignore[arg-type]
        optimizer.step()
        optimizer.zero_grad()

    step()
    before = {
        weight: {key: torch.as_tensor(value).clone() for key, value in state.items()}
        for weight, state in optimizer.state.items()
    }
    shapes = {weight: weight.shape for weight in net.parameters()}
    cuts = cut_(net, everything(net))
    cut_state_(optimizer, cuts, shapes)
    refresh_row_parts(optimizer, net)
    left = set(net.parameters())
    assert {weight for group in optimizer.param_groups for weight in group["params"]} == left
    assert set(optimizer.state) <= left
    checked = 0
    for weight, state in optimizer.state.items():
        axes = cuts[weight]
        assert axes is not None
        for key, value in state.items():
            expected = before[weight][key]  # type: ignore[index]
            if isinstance(value, Tensor) and value.ndim == len(axes):
                for axis, indices in enumerate(axes):
                    if indices is not None and expected.shape[axis] > 1:
                        expected = expected[(slice(None),) * axis + (indices,)]
                checked += 1
            assert torch.equal(torch.as_tensor(value), expected)
    assert checked >= len(left) // 2
    fresh = recipe.build(net)
    for group, new in zip(optimizer.param_groups, fresh.param_groups, strict=True):
        assert group.get("row_parts") == new.get("row_parts")
        assert set(group["params"]) == set(new["params"])
    step()
    assert all(weight.isfinite().all() for weight in net.parameters())


def everything(net: Transformer, heads: bool = True) -> Kept:
    """Half of the heads, channels and blocks, and three quarters of the features."""

    def some(count: int, of: int) -> Callable[[], Tensor]:
        return lambda: torch.randperm(of)[:count].sort().values

    two_heads, ffn_dim = some(2, 4), net.config.output_stack.ffn_dim
    attention = {name: two_heads() for name in modules(net, Attention, CrossAttention)}
    stacks = [side for side in ("encoder", "decoder") if getattr(net, side) is not None]
    return Kept(
        heads=attention if heads else {},
        kv_heads=attention if heads else {},
        channels={
            name: some(ffn_dim // 2, ffn_dim)()
            for name in modules(net, FeedForward, GatedFeedForward)
        },
        features=some(24, 32)(),
        blocks={side: torch.tensor([1]) for side in stacks},
    )
