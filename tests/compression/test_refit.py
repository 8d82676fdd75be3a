"""What stays is fitted to what all of it gave, and makes good for copies of it altogether."""

from functools import partial

import pytest
import torch
from torch import Tensor

from gpt4o_lit.compression import Kept, cut_, refit_
from gpt4o_lit.compression.refit import fit_
from gpt4o_lit.compression.second_order import DAMPING
from gpt4o_lit.model import FeedForwardConfig
from gpt4o_lit.model.attention import Attention
from gpt4o_lit.model.feed_forward import FeedForward, GatedFeedForward
from gpt4o_lit.model.linear import Linear
from tests.compression.test_structure import ATTENTION, KINDS, modules, run
from tests.model.conftest import network, tokens

__all__ = ["tokens"]  # a fixture

KEPT = torch.tensor([0, 1, 4, 5])


def with_one(x_MI: Tensor) -> Tensor:
    return torch.cat([x_MI, torch.ones(len(x_MI), 1)], dim=1)


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_is_fitted_by_least_squares(bias: bool) -> None:
    """As `lstsq` finds the difference that the inputs that go made, with damping as more rows."""
    x_MI = torch.randn(40, 6) @ torch.randn(6, 6) + torch.randn(6)
    layer = Linear(6, 5, bias=bias)
    goes = torch.tensor([2, 3])
    known = with_one(x_MI[:, KEPT]) if bias else x_MI[:, KEPT]
    damping = (DAMPING * x_MI[:, KEPT].square().sum(0).mean()).sqrt()
    damped = damping * torch.eye(4, known.shape[1])
    asked = torch.cat([x_MI[:, goes] @ layer.weight[:, goes].T, torch.zeros(4, 5)])
    more = torch.linalg.lstsq(torch.cat([known, damped]), asked).solution
    expected = layer.weight[:, KEPT] + more[:4].T
    expected_bias = layer.bias + more[4] if bias else None
    gram = with_one(x_MI).T @ with_one(x_MI)
    fit_(layer, gram, KEPT)
    torch.testing.assert_close(layer.weight[:, KEPT], expected, atol=1e-4, rtol=1e-4)
    assert not layer.weight[:, goes].any()
    if expected_bias is not None:
        torch.testing.assert_close(layer.bias, expected_bias, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("activation", ["swiglu", "gelu"])
@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("kind", KINDS)
def test_who_has_a_copy_can_go(
    kind: str, attention: dict[str, object], activation: str, tokens: Tensor
) -> None:
    """Channels twice as many, each there twice, and one of each taken out: near to no difference,
    though what is left must count for both. Without the fit there is one."""
    feed_forward = FeedForwardConfig(activation=activation, ffn_dim=48)  # type: ignore[arg-type]
    net = network(kind, attention=attention, feed_forward=feed_forward).double()
    channels = {}
    for name, part in modules(net, FeedForward, GatedFeedForward).items():
        up = part.gate_up if isinstance(part, GatedFeedForward) else part.up
        for layer in (up.weight.data, *([] if up.bias is None else [up.bias.data])):
            halves = layer.view(-1, 2, 24, *layer.shape[1:])
            halves[:, 1] = halves[:, 0]
        channels[name] = torch.arange(24)
    expected = run(net, tokens)
    kept = Kept(channels=channels)
    refit_(net, kept, [partial(run, net, tokens)], reduce=lambda sums: sums)
    fitted = (run(net, tokens) - expected).norm() / expected.norm()
    assert fitted < 0.05
    cut_(net, kept)
    cut = (run(net, tokens) - expected).norm() / expected.norm()
    torch.testing.assert_close(cut, fitted, atol=1e-6, rtol=1e-4)


def test_what_loses_nothing_stays_as_it_is(tokens: Tensor) -> None:
    net = network("decoder")
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    channels = {
        name: torch.arange(part.down.in_features)
        for name, part in modules(net, FeedForward, GatedFeedForward).items()
    }
    refit_(net, Kept(channels=channels), [partial(run, net, tokens)], reduce=lambda sums: sums)
    for name, weight in net.state_dict().items():
        assert torch.equal(weight, before[name])


def test_a_fit_is_nearer_to_the_whole_than_a_cut(tokens: Tensor) -> None:
    """On what it was fitted to, over heads and channels, and 8 networks out of 8."""
    for seed in range(8):
        torch.manual_seed(seed)
        errors = []
        for refit in (False, True):
            torch.manual_seed(seed)
            net = network("decoder", feed_forward=FeedForwardConfig(ffn_dim=48))
            expected = run(net, tokens)
            heads = {name: torch.tensor([0, 2, 3]) for name in modules(net, Attention)}
            parts = modules(net, FeedForward, GatedFeedForward)
            kept = Kept(
                heads=heads, kv_heads=heads, channels=dict.fromkeys(parts, torch.arange(8, 48))
            )
            if refit:
                refit_(net, kept, [partial(run, net, tokens)], reduce=lambda sums: sums)
            cut_(net, kept)
            errors.append((run(net, tokens) - expected).norm())
        assert errors[1] < errors[0]
