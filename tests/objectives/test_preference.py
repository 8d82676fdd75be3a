"""Log-likelihoods of rows and the loss of preferences, against the formulas written out."""

import math

import pytest
import torch
import torch.nn.functional as F

from gpt4o_lit.objectives import direct_preference_loss, row_log_likelihoods


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_rows_sum_what_is_asked(softcap: float | None) -> None:
    features = torch.randn(3, 700, 8, requires_grad=True)  # more than a chunk is asked
    weight = torch.randn(11, 8, requires_grad=True)
    bias = torch.randn(11)
    targets = torch.randint(0, 11, (3, 700))
    targets[0, :300] = -100
    targets[2] = -100
    logits = F.linear(features, weight, bias)
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    kept = targets.clamp(min=0)
    expected = logits.log_softmax(-1).gather(-1, kept[..., None])[..., 0]
    expected = (expected * (targets >= 0)).sum(1)
    found = row_log_likelihoods(features, weight, targets, bias=bias, softcap=softcap)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-5)
    assert found[2] == 0
    slopes = torch.tensor([1.0, -2.0, 3.0])
    ours = torch.autograd.grad((found * slopes).sum(), (features, weight))
    theirs = torch.autograd.grad((expected * slopes).sum(), (features, weight))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_the_loss_is_that_of_the_paper() -> None:
    policy, reference = torch.randn(8), torch.randn(8)
    loss, margin = direct_preference_loss(policy, reference, beta=0.3)
    for number in range(4):
        reward = [0.3 * float(policy[k] - reference[k]) for k in (number, number + 4)]
        assert float(margin[number]) == pytest.approx(reward[0] - reward[1], abs=1e-6)
        expected = -math.log(1 / (1 + math.exp(reward[1] - reward[0])))
        assert float(loss[number]) == pytest.approx(expected, abs=1e-5)


def test_one_who_is_the_reference_has_log_two_to_lose() -> None:
    same = torch.randn(6)
    loss, margin = direct_preference_loss(same, same, beta=0.1, label_smoothing=0.2)
    torch.testing.assert_close(loss, torch.full((3,), math.log(2)))
    assert not margin.any()


def test_nothing_asked_has_a_gradient_of_nothing() -> None:
    features = torch.randn(2, 5, 8, requires_grad=True)
    weight = torch.randn(11, 8, requires_grad=True)
    found = row_log_likelihoods(features, weight, torch.full((2, 5), -100))
    found.sum().backward()
    for each in (found, features.grad, weight.grad):
        assert each is not None
        assert not each.any()
