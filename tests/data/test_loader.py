"""The order of batches is pure, complete, shared out fairly, and can be gone on with."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gpt4o_lit.callbacks import Elastic
from gpt4o_lit.data import PackedLoader
from gpt4o_lit.data.loader import Order, order_in


class CountingSplit:
    """A split whose window i holds the number i, so that one sees which windows were read."""

    def __init__(self, windows: int) -> None:
        self.count = windows

    def num_windows(self, seq_len: int) -> int:
        return self.count

    def windows(self, indices: np.ndarray, seq_len: int) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.repeat(np.asarray(indices, np.int64)[:, None], seq_len + 1, axis=1)
        return tokens, np.zeros(tokens.shape, np.int32)


def loader(
    windows: int = 23, batch_size: int = 3, limit: int | None = None, **order: Any
) -> PackedLoader:
    split: Any = CountingSplit(windows)
    place = Order(**order)
    return PackedLoader(split, seq_len=4, batch_size=batch_size, order=place, limit=limit)


def flatten(rows: list[list[int]]) -> list[int]:
    return [number for row in rows for number in row]


def read(batches: PackedLoader, limit: int | None = None) -> list[list[int]]:
    rows = []
    for batch in batches:
        rows.append(batch["tokens"][:, 0].tolist())
        if len(rows) == limit:
            break
    return rows


def test_an_epoch_has_every_window_at_most_once_and_the_next_is_ordered_anew() -> None:
    batches = loader()
    first, second = read(batches), read(batches)
    flat = flatten(first)
    assert len(flat) == len(set(flat)) == 21
    assert len(first) == len(batches) == 7
    assert first != second


def test_validation_reads_every_window_once_in_order() -> None:
    batches = loader(shuffle=False)
    assert flatten(read(batches)) == list(range(23))
    assert flatten(read(batches)) == list(range(23))


@pytest.mark.parametrize("stop", [0, 1, 4, 6])
def test_a_loader_that_was_stopped_goes_on_behind_its_last_batch(stop: int) -> None:
    whole = loader()
    expected = read(whole) + read(whole)
    stopped = loader()
    seen = read(stopped, stop) if stop else []
    resumed = loader()
    resumed.load_state_dict(stopped.state_dict())
    assert seen + read(resumed) + read(resumed) == expected


@pytest.mark.parametrize("world_size", [2, 3])
def test_each_global_batch_is_the_same_set_for_any_number_of_ranks(world_size: int) -> None:
    batch_size = 6
    alone = read(loader(60, batch_size=batch_size))
    ranks = [
        read(loader(60, batch_size=batch_size // world_size, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    together = [sorted(flatten(step)) for step in map(list, zip(*ranks, strict=True))]
    assert together == [sorted(step) for step in alone]


def test_batches_have_the_shapes_and_types_that_the_network_reads() -> None:
    batch = next(iter(loader()))
    assert batch["tokens"].shape == batch["documents"].shape == (3, 5)
    assert batch["tokens"].dtype == torch.int64
    assert batch["documents"].dtype == torch.int32


def test_an_epoch_that_is_not_read_past_its_last_batch_is_still_over() -> None:
    whole, counted = loader(), loader()
    expected = read(whole) + read(whole)
    assert read(counted, 7) + read(counted, 7) == expected


def test_validation_that_stops_early_starts_at_the_beginning_again() -> None:
    batches = loader(shuffle=False)
    assert read(batches, 2) == read(batches, 2)


def test_a_place_in_other_batches_is_refused_unless_the_epoch_is_over() -> None:
    stopped = loader()
    read(stopped, 2)
    for change in ({"batch_size": 4}, {"seed": 1}, {"checksum": "other"}):
        with pytest.raises(ValueError, match="set it as it was"):
            loader(**change).load_state_dict(stopped.state_dict())
    read(stopped)
    loader(batch_size=4).load_state_dict(stopped.state_dict())


def test_a_limit_ends_the_epoch_and_the_next_is_ordered_anew() -> None:
    limited, whole = loader(limit=3), loader()
    first, second = read(limited), read(limited)
    assert first == read(whole, 3)
    whole.load_state_dict(whole.state_dict() | {"epoch": 1, "batches_done": 0})
    assert second == read(whole, 3)
    resumed = loader(limit=3)
    resumed.load_state_dict(limited.state_dict())
    assert read(resumed) == read(limited)


@pytest.mark.parametrize(("began", "now"), [(2, 1), (1, 2), (4, 2), (2, 4)])
def test_more_or_fewer_processes_take_turns_at_the_batches_of_those_before(
    began: int, now: int
) -> None:
    """Stopped behind four batches of all, and back again behind four more."""
    order = {"world_size": began, "rank": 0}
    whole = [loader(windows=200, **(order | {"rank": rank})) for rank in range(began)]
    epochs = [read(each) for each in whole]
    expected = [row for turn in zip(*epochs, strict=True) for row in turn]
    first = loader(windows=200, **order)
    read(first, 4)
    fewer = [
        loader(windows=200, rank=rank, world_size=now, began_with=began) for rank in range(now)
    ]
    for each in fewer:
        each.load_state_dict(first.state_dict())
    parts = [read(each, 4 * began // now) for each in fewer]
    assert [row for turn in zip(*parts, strict=True) for row in turn] == expected[4 * began :][
        : 4 * began
    ]
    again = loader(windows=200, **order)
    again.load_state_dict(fewer[0].state_dict())
    assert read(again) == epochs[0][8:]
    assert again.state_dict()["batches_done"] == len(again)


@pytest.mark.parametrize(("sharing", "began", "now"), [(2, 2, 2), (2, 2, 1), (1, 4, 2), (4, 1, 1)])
def test_processes_that_share_a_network_count_as_one(sharing: int, began: int, now: int) -> None:
    trainer = SimpleNamespace(
        global_rank=0,
        world_size=now * sharing,
        callbacks=[Elastic(began_with=began * sharing)],
        strategy=SimpleNamespace(distributed_sampler_kwargs={"rank": 0, "num_replicas": now}),
    )
    order = order_in(trainer, 0, True, "")
    assert (order.world_size, order.began_with) == (now, began)
    assert order_in(trainer, 0, False, "").began_with is None
