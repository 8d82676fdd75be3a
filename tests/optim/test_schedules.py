"""Schedules are exact at their corners and refuse nonsense."""

import itertools
import math
from collections.abc import Callable

import pytest

from gpt4o_lit.optim import (
    Constant,
    Schedule,
    WarmupCosine,
    WarmupInverseSqrt,
    WarmupLinear,
    WarmupStableDecay,
)

EVERY: list[Schedule] = [
    Constant(warmup=10),
    WarmupCosine(warmup=10),
    WarmupLinear(warmup=10),
    WarmupInverseSqrt(warmup=10),
    WarmupStableDecay(warmup=10),
]


@pytest.mark.parametrize("schedule", EVERY, ids=repr)
def test_warm_up_rises_in_equal_parts_to_one(schedule: Schedule) -> None:
    factors = [schedule(step, 100) for step in range(11)]
    assert factors == pytest.approx([(step + 1) / 11 for step in range(11)])
    assert factors[10] == 1.0


@pytest.mark.parametrize("schedule", EVERY, ids=repr)
def test_after_the_warm_up_the_rate_never_rises(schedule: Schedule) -> None:
    factors = [schedule(step, 100) for step in range(10, 120)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(factors))
    assert all(0.0 <= factor <= 1.0 for factor in factors)


@pytest.mark.parametrize("schedule", EVERY, ids=repr)
def test_no_step_is_made_at_rate_zero(schedule: Schedule) -> None:
    assert all(schedule(step, 100) > 0.0 for step in range(100))


def test_without_warm_up_the_first_step_is_at_full_rate() -> None:
    kinds = (Constant, WarmupCosine, WarmupLinear, WarmupStableDecay)
    assert [kind(warmup=0)(0, 100) for kind in kinds] == [1.0] * 4


@pytest.mark.parametrize("schedule", EVERY, ids=repr)
def test_a_run_of_one_step_has_a_rate(schedule: Schedule) -> None:
    assert 0.0 < schedule(0, 1) <= 1.0


def test_cosine_is_halfway_down_in_the_middle_and_at_its_least_at_the_end() -> None:
    schedule = WarmupCosine(warmup=20, min_factor=0.1)
    assert schedule(60, 100) == pytest.approx(0.55)
    assert schedule(40, 100) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.sqrt(0.5)))
    assert schedule(100, 100) == schedule(1000, 100) == pytest.approx(0.1)


def test_linear_falls_in_a_straight_line() -> None:
    schedule = WarmupLinear(warmup=20, min_factor=0.2)
    assert schedule(60, 100) == pytest.approx(0.6)
    assert schedule(100, 100) == pytest.approx(0.2)


def test_inverse_square_root_halves_where_the_step_is_four_times_as_far() -> None:
    schedule = WarmupInverseSqrt(warmup=24, min_factor=0.3)
    assert schedule(99, 10_000) == pytest.approx(0.5)
    assert schedule(9_999, 10_000) == 0.3


def test_stable_decay_stays_then_falls_in_its_share() -> None:
    schedule = WarmupStableDecay(warmup=10, decay=0.2, min_factor=0.5)
    assert {schedule(step, 100) for step in range(10, 81)} == {1.0}
    assert schedule(90, 100) == pytest.approx(0.75)
    assert schedule(100, 100) == pytest.approx(0.5)
    assert WarmupStableDecay(warmup=0, decay=0.0)(99, 100) == 1.0


def test_warm_up_as_a_share_equals_warm_up_in_steps() -> None:
    share, steps = WarmupCosine(warmup=0.1), WarmupCosine(warmup=20)
    assert [share(step, 200) for step in range(200)] == [steps(step, 200) for step in range(200)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(warmup=-1), r"warmup \(-1\) must be a whole number of steps or a share"),
        (lambda: WarmupCosine(warmup=1.5), r"warmup \(1.5\) must be a whole number"),
        (lambda: WarmupCosine(warmup=math.inf), r"warmup \(inf\)"),
        (lambda: WarmupCosine(min_factor=1.1), r"min_factor \(1.1\) must lie between 0 and 1"),
        (lambda: WarmupLinear(min_factor=-0.1), r"min_factor \(-0.1\) must lie between 0 and 1"),
        (lambda: WarmupInverseSqrt(warmup=0), r"warmup \(0\) must be above 0"),
        (lambda: WarmupStableDecay(decay=2.0), r"decay \(2.0\) must lie between 0 and 1"),
        (lambda: WarmupStableDecay(warmup=0.5, decay=0.6), "overlap: their sum must not exceed 1"),
        (lambda: WarmupCosine()(0, 0), r"max_steps \(0\) must be at least 1"),
        (lambda: WarmupCosine()(0, -1), r"max_steps \(-1\).*set trainer.max_steps"),
    ],
)
def test_nonsense_is_refused_by_name(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
