"""Scaling and clipping in one pass equals scaling, then torch's own clipping."""

import pytest
import torch
from torch import nn

from gpt4o_lit.tasks.gradients import scale_and_clip_


@pytest.mark.parametrize("scale", [0.25, 1.0, 7.0])
@pytest.mark.parametrize("max_norm", [None, 0.5, 1e6])
def test_one_pass_equals_two(scale: float, max_norm: float | None) -> None:
    ours, theirs = [nn.Parameter(torch.randn(5, 3)) for _ in range(3)], []
    for parameter in ours:
        parameter.grad = torch.randn(5, 3)
        theirs.append(nn.Parameter(parameter.detach().clone()))
        theirs[-1].grad = parameter.grad * scale
    norm = scale_and_clip_(ours, scale, max_norm)
    expected = nn.utils.clip_grad_norm_(theirs, max_norm or float("inf"))
    torch.testing.assert_close(norm, expected)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_parameters_without_gradients_have_norm_zero() -> None:
    assert scale_and_clip_([nn.Parameter(torch.ones(2))], 1.0, 1.0) == 0


def test_parts_of_a_matrix_are_clipped_by_the_norm_of_the_whole() -> None:
    whole = nn.Parameter(torch.zeros(6, 3))
    whole.grad = torch.randn(6, 3)
    part = nn.Parameter(torch.zeros(2, 3))
    part.grad = whole.grad[:2].clone()
    square = whole.grad.square().sum()
    norm = scale_and_clip_([part], 2.0, 0.5, lambda weights, squares: square)
    torch.testing.assert_close(norm, 2 * square.sqrt())
    torch.testing.assert_close(part.grad, whole.grad[:2] * 0.5 / square.sqrt())
