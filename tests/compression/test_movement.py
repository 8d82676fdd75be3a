"""Scores of movement: what the formula says, whatever is pruned meanwhile."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gpt4o_lit.compression import MovementScores, magnitude_masks


class StraightThrough(torch.autograd.Function):
    """The masked weight forward; backward as if the mask were scores times the weight."""

    @staticmethod
    def forward(ctx, weight: Tensor, scores: Tensor, kept: Tensor) -> Tensor:  # type: ignore
        ctx.save_for_backward(weight, kept)
        return weight * kept

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore
        weight, kept = ctx.saved_tensors
        return grad * kept, grad * weight, None


def test_scores_equal_those_of_a_straight_through_estimator() -> None:
    """The twin keeps weights, scores and mask apart, as the paper writes them (equations 2, 3)."""
    layer = nn.Linear(12, 8, bias=False)
    weight = layer.weight.detach().clone().requires_grad_()
    scores = torch.zeros_like(weight).requires_grad_()
    kept = torch.ones_like(weight, dtype=torch.bool)
    ours = MovementScores({"a": layer.weight})
    for step in range(12):
        if step % 3 == 2:
            kept = magnitude_masks({"a": scores.detach()}, step / 16, signed=True)["a"]
            mask = magnitude_masks(ours.scores, step / 16, signed=True)
            ours.swap_(mask)
            assert torch.equal(mask["a"], kept)
        inputs, wanted = torch.randn(16, 12), torch.randn(16, 8)
        (layer(inputs) - wanted).square().sum().backward()
        ours.learn_()
        layer.weight.grad.mul_(kept)  # type: ignore[union-attr]
        masked = StraightThrough.apply(weight, scores, kept)
        (inputs @ masked.T - wanted).square().sum().backward()
        for theirs, rate in ((weight, 1e-3), (scores, 1.0)):
            theirs.data -= rate * theirs.grad  # type: ignore[operator]
            theirs.grad = None
        layer.weight.data -= 1e-3 * layer.weight.grad  # type: ignore[operator]
        layer.weight.grad = None
        torch.testing.assert_close(layer.weight, weight * kept, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.scores["a"], scores.detach(), atol=1e-3, rtol=1e-4)
    assert not kept.all()


def test_what_is_pruned_may_come_back_as_it_was() -> None:
    weight = nn.Parameter(torch.randn(6, 8))
    before = weight.detach().clone()
    scores = MovementScores({"a": weight})
    first, second = (torch.rand(6, 8) > 0.5 for _ in range(2))
    for kept in (first, second):
        scores.swap_({"a": kept})
        assert torch.equal(weight, before * kept)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0, 0.999), levels=st.integers(1, 50))
def test_the_lowest_scores_are_pruned_whatever_their_sign(
    seed: int, share: float, levels: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.randn(9, 11, generator=generator) * levels).round() / levels + 0.0
    count = round(share * scores.numel())
    expected = torch.ones(scores.numel(), dtype=torch.bool)
    expected[scores.flatten().argsort(stable=True)[:count]] = False
    for scope in ("global", "layer"):
        kept = magnitude_masks({"a": scores}, share, scope, signed=True)["a"]  # type: ignore
        assert torch.equal(kept.flatten(), expected)
    rows = magnitude_masks({"a": scores}, share, "row", signed=True)["a"]
    assert ((~rows).sum(1) == round(share * 11)).all()
    lowest_kept = scores.masked_fill(~rows, torch.inf).amin(1)
    assert (scores.masked_fill(rows, -torch.inf).amax(1) <= lowest_kept).all()


def test_nothing_is_learned_from_gradients_that_are_not_finite() -> None:
    weights = {name: nn.Parameter(torch.randn(4, 4)) for name in "ab"}
    scores = MovementScores(weights)
    for weight in weights.values():
        weight.grad = torch.randn(4, 4)
    scores.learn_(2.0)
    learned = {name: score.clone() for name, score in scores.scores.items()}
    for name, weight in weights.items():
        assert weight.grad is not None
        torch.testing.assert_close(learned[name], -2 * weight.grad * weight.detach())
    weights["a"].grad = torch.full((4, 4), torch.inf)
    scores.learn_()
    for name, score in scores.scores.items():
        assert torch.equal(score, learned[name])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_state_is_taken_over(dtype: torch.dtype) -> None:
    weights = {"a": nn.Parameter(torch.randn(4, 4, dtype=dtype))}
    scores = MovementScores(weights)
    weights["a"].grad = torch.randn(4, 4, dtype=dtype)
    scores.learn_()
    scores.swap_(magnitude_masks(scores.scores, 0.5, signed=True))
    other = MovementScores({"a": weights["a"].detach().clone()})
    other.load_state_dict(scores.state_dict())
    everything = {"a": torch.ones(4, 4, dtype=torch.bool)}
    for each in (scores, other):
        each.swap_(everything)
    assert torch.equal(scores.weights["a"], other.weights["a"])
    assert torch.equal(scores.scores["a"], other.scores["a"])
