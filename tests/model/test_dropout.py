"""Dropout keeps the mean, drops its share, and tosses each coin apart."""

import pytest
import torch

from gpt4o_lit.model.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_dropped_and_the_scale_are_those_of_the_rate(rate):
    ones = torch.ones(1001, 999)
    out = Dropout(rate)(ones)
    assert (out == 0).float().mean().item() == pytest.approx(rate, abs=4e-3)
    torch.testing.assert_close(out[out != 0].unique(), torch.tensor([1 / (1 - rate)]))


def test_the_slope_goes_through_what_stayed():
    x = torch.randn(7, 9, requires_grad=True)
    out = Dropout(0.5)(x)
    (slope,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(slope, torch.where(out == 0, 0.0, 2.0))


def test_coins_of_one_draw_do_not_hang_together():
    dropped = (Dropout(0.5)(torch.ones(40_000)) == 0).float().view(-1, 4) - 0.5
    together = dropped.T @ dropped / len(dropped)
    torch.testing.assert_close(together, torch.eye(4) / 4, atol=0.015, rtol=0)


def test_the_seed_decides_and_evaluation_changes_nothing():
    x, drop = torch.randn(5, 8), Dropout(0.3)
    torch.manual_seed(3)
    first = drop(x)
    torch.manual_seed(3)
    assert torch.equal(drop(x), first)
    assert not torch.equal(drop(x), first)
    assert drop.eval()(x) is x
