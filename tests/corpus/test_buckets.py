"""Batches of like length hold every pair once, keep to their size, and have little padding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt4o_lit.corpus.buckets import Buckets


def some_lengths(count: int, longest: int = 60) -> np.ndarray:
    random = np.random.default_rng(count)
    source = random.lognormal(2.5, 0.6, count).astype(int).clip(1, longest)
    target = (source * random.uniform(0.5, 1.5, count)).astype(int).clip(1, longest)
    return np.stack([source, target], axis=1)


def padded(lengths: np.ndarray, batches: list[np.ndarray]) -> int:
    return sum(int(lengths[batch].max(0).sum()) * len(batch) for batch in batches)


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=80),
    st.one_of(st.none(), st.integers(0, 9)),
)
@settings(max_examples=60, deadline=None)
def test_every_pair_is_in_one_batch_that_keeps_to_its_size(
    pairs: list[tuple[int, int]], seed: int | None
) -> None:
    lengths = np.array(pairs)
    buckets = Buckets(lengths, 200)
    batches = buckets.batches(seed)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(pairs)))
    assert len(batches) == len(buckets)
    for batch in batches:
        assert padded(lengths, [batch]) <= 200
    assert buckets.padding == pytest.approx(1 - lengths.sum() / padded(lengths, batches))


def test_little_of_the_batches_is_padding() -> None:
    assert Buckets(some_lengths(20_000), 4096).padding < 0.1


def test_each_epoch_has_as_many_batches_of_other_pairs() -> None:
    buckets = Buckets(some_lengths(2_000), 1024)
    first, again, second = (buckets.batches((0, epoch)) for epoch in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert sorted(map(len, first)) == sorted(map(len, second))
    assert {frozenset(each) for each in map(tuple, first)} != {
        frozenset(each) for each in map(tuple, second)
    }
