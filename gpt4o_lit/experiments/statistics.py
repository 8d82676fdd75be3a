"""What seeds tell: spread, differences paired by seed, and a correction for many comparisons."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

LEVEL = 0.05
"""Evidence is a corrected p below it; an interval covers all but this share."""
RESOLUTION = 1e-7
"""Of metrics, which are logged as float32: what differs by less of their size is equal."""


@dataclass(frozen=True)
class Spread:
    """The values of one variant over its seeds."""

    count: int
    mean: float
    deviation: float | None
    """Standard deviation of a sample (n - 1); None of one value."""
    smallest: float
    largest: float


@dataclass(frozen=True)
class Comparison:
    """A variant against the base, by the seeds that both have."""

    count: int
    """Seeds that both have."""
    difference: float | None = None
    """The mean of variant minus base; None without a common seed."""
    low: float | None = None
    """Of the 95% interval of the difference; None where seeds show no spread."""
    high: float | None = None
    p: float | None = None
    """Of the two-sided paired t-test."""


def spread(values: Sequence[float]) -> Spread:
    """Mean, standard deviation and range.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("a spread needs at least one value")
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(len(values), float(np.mean(values)), deviation, min(values), max(values))


def compare(ours: Mapping[int, float], base: Mapping[int, float]) -> Comparison:
    """The mean difference over common seeds, its 95% interval, and the paired t-test (two-sided).

    Differences by seed are taken for independent draws from a normal distribution, which two or
    three of them cannot show. Where all are the same to the precision of the log there is neither
    interval nor test: t would be a division by nothing.

    Args:
        ours: The variant's value by seed.
        base: The base's value by seed.
    """
    seeds = sorted(ours.keys() & base.keys())
    differences = np.array([ours[seed] - base[seed] for seed in seeds])
    if not seeds:
        return Comparison(0)
    count, mean = len(seeds), float(differences.mean())
    size = max(abs(each[seed]) for each in (ours, base) for seed in seeds)
    if count == 1 or np.ptp(differences) <= RESOLUTION * size:
        return Comparison(count, mean)
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    reach = float(stdtrit(count - 1, 1 - LEVEL / 2)) * error
    p = 2 * float(stdtr(count - 1, -abs(mean) / error))
    return Comparison(count, mean, mean - reach, mean + reach, p)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values corrected for their number: the chance of any false alarm stays below the level.

    Holm's step-down method (Scandinavian Journal of Statistics 6, 1979), for tests that may depend
    on one another, as all do that share a base.
    """
    order = sorted(range(len(ps)), key=lambda place: ps[place])
    corrected, largest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        corrected[place] = largest
    return corrected
