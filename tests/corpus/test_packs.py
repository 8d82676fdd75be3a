"""Packed rows hold every example once, keep to their length, and have next to no padding."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt4o_lit.corpus.packs import Packs


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=120),
    st.integers(1, 5),
    st.one_of(st.none(), st.integers(0, 9)),
)
@settings(max_examples=60, deadline=None)
def test_every_example_is_in_one_row_that_has_room_for_it(
    lengths: list[int], rows_per_batch: int, seed: int | None
) -> None:
    packs = Packs(np.array(lengths), 40, 40 * rows_per_batch)
    batches = packs.batches(seed)
    assert len(batches) == len(packs)
    assert all(1 <= len(rows) <= rows_per_batch for rows in batches)
    rows = [row for batch in batches for row in batch]
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(lengths)))
    sums = [int(np.array(lengths)[row].sum()) for row in rows]
    assert max(sums) <= 40
    assert packs.padding == pytest.approx(1 - sum(sums) / (40 * len(rows)))


def test_little_of_the_rows_is_padding() -> None:
    lengths = np.random.default_rng(0).lognormal(4.5, 0.8, 50_000).astype(int).clip(1, 1024)
    start = time.perf_counter()
    packs = Packs(lengths, 1024, 4096)
    assert packs.padding < 0.01
    assert time.perf_counter() - start < 10


def test_each_epoch_has_as_many_batches_of_other_rows() -> None:
    packs = Packs(np.random.default_rng(0).integers(1, 30, 500), 60, 240)
    first, again, second = (
        [[row.tolist() for row in batch] for batch in packs.batches((0, epoch))]
        for epoch in (0, 0, 1)
    )
    assert first == again
    assert len(first) == len(second)
    assert {frozenset(row) for batch in first for row in batch} != {
        frozenset(row) for batch in second for row in batch
    }


@pytest.mark.parametrize(
    ("row", "batch", "message"),
    [(20, 40, r"an example has 30 tokens, more than a row \(20\)"), (60, 40, "room for a row")],
)
def test_what_has_no_room_is_named(row: int, batch: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Packs(np.array([30, 5]), row, batch)
