"""The statistics are SciPy's, and a correction for many comparisons is Holm's."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gpt4o_lit.experiments.statistics import compare, holm, spread


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_the_paired_test_and_its_interval_are_scipys(count: int) -> None:
    draws = np.random.default_rng(count)
    base = draws.normal(2, 0.1, count)
    ours = base + draws.normal(0.05, 0.03, count)
    told = compare(dict(enumerate(ours)), dict(enumerate(base)))
    theirs = stats.ttest_rel(ours, base)
    interval = theirs.confidence_interval(0.95)
    assert told.count == count
    assert (told.difference, told.p) == pytest.approx(((ours - base).mean(), theirs.pvalue))
    assert (told.low, told.high) == pytest.approx((interval.low, interval.high))


def test_the_spread_is_scipys() -> None:
    values = [2.0, 2.5, 2.25, 3.5]
    told, theirs = spread(values), stats.describe(values)
    assert told.deviation is not None
    assert (told.mean, told.deviation**2) == pytest.approx((theirs.mean, theirs.variance))
    assert (told.count, (told.smallest, told.largest)) == (theirs.nobs, theirs.minmax)


def test_seeds_are_compared_with_themselves_alone() -> None:
    told = compare({1: 2.0, 2: 3.0, 3: 4.5}, {3: 4.0, 2: 2.9, 7: 100.0})
    same = compare({0: 3.0, 1: 4.5}, {0: 2.9, 1: 4.0})
    assert told == same
    assert told.count == 2


def test_one_seed_gives_a_difference_and_nothing_more() -> None:
    told = compare({0: 2.5}, {0: 2.0, 1: 9.0})
    assert (told.count, told.difference) == (1, 0.5)
    assert (told.low, told.high, told.p) == (None, None, None)
    assert spread([2.5]).deviation is None


def test_no_common_seed_gives_nothing() -> None:
    assert compare({0: 1.0}, {1: 1.0}).difference is None
    with pytest.raises(ValueError, match="at least one value"):
        spread([])


def test_differences_that_are_all_the_same_are_no_evidence() -> None:
    """Else two seeds whose differences agree by rounding alone would be the surest of all."""
    told = compare({0: 2.1, 1: 3.1}, {0: 2.0, 1: 3.0})
    assert told.difference == pytest.approx(0.1)
    assert told.p is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_is_the_closed_test_of_bonferroni(ps: list[float]) -> None:
    """The definition behind it: a hypothesis falls when all that say it among others do."""
    places = range(len(ps))
    groups = [set(g) for size in range(1, len(ps) + 1) for g in combinations(places, size)]
    expected = [
        max(min(1.0, len(group) * min(ps[k] for k in group)) for group in groups if place in group)
        for place in places
    ]
    assert holm(ps) == pytest.approx(expected)
