"""Numbers are uniform, of no pattern, and follow from key, row and turn alone."""

import pytest
import torch
from scipy import stats

from gpt4o_lit.objectives import Draws


def test_it_is_splitmix64() -> None:
    """The first outputs for seed 1234567 that Steele, Lea and Flood's generator is known by."""
    draws = Draws((0,), torch.arange(1))
    draws._rows_B1 = torch.tensor([[1234567]])
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    expected = [(each >> 40) / 2**24 for each in known]
    assert draws.rand(3)[0].tolist() == pytest.approx(expected, abs=0)


def test_numbers_are_uniform_and_do_not_hang_together() -> None:
    numbers_BT = Draws((3, 1), torch.arange(500)).rand(400).double()
    assert 0 <= numbers_BT.min() < 1e-4
    assert 1 - 1e-4 < numbers_BT.max() < 1
    assert stats.kstest(numbers_BT.flatten().numpy(), "uniform").pvalue > 1e-3
    centred = numbers_BT - 0.5
    for other in (centred.roll(1, 0), centred.roll(1, 1)):  # of the row before, the turn before
        correlation = 12 * (centred * other).mean()
        assert abs(correlation) < 4 / numbers_BT.numel() ** 0.5


def test_a_row_draws_the_same_in_any_batch() -> None:
    whole, part = Draws((5,), torch.arange(8)), Draws((5,), torch.tensor([6, 2]))
    for shape in ((4,), (3, 5), ()):
        assert torch.equal(whole.rand(*shape)[[6, 2]], part.rand(*shape))


def test_other_keys_and_later_turns_draw_others() -> None:
    drawn = [Draws(key, torch.arange(50)).rand(20) for key in ((0,), (1,), (0, 1), (2**32,))]
    again = Draws((0,), torch.arange(50))
    again.rand(20)
    numbers = torch.stack([*drawn, again.rand(20)])
    repeated = numbers.numel() - len(numbers.unique())
    assert repeated <= 5  # of 5,000 out of 2^24 less than one by chance
