"""Snapshots: equal to the state, apart from it, in the same memory from one to the next."""

from typing import Any

import torch

from gpt4o_lit.callbacks.snapshot import Snapshot


def state(value: float) -> dict[str, Any]:
    weight = torch.full((6, 4), value)
    return {"weight": weight, "tied": weight, "rows": weight[2:].T, "more": [torch.ones(24), value]}


def test_a_snapshot_is_the_state_and_apart_from_it() -> None:
    given = state(1.0)
    own = Snapshot().of(given)
    given["weight"].fill_(9.0)
    assert own["more"][1] == 1.0
    assert torch.equal(own["weight"], torch.full((6, 4), 1.0))
    assert own["rows"].stride() == given["rows"].stride()
    assert own["tied"].data_ptr() == own["weight"].data_ptr()
    assert own["rows"].data_ptr() == own["weight"][2:].data_ptr()
    assert own["weight"].data_ptr() != own["more"][0].data_ptr()  # of one size, and not one


def test_memory_is_used_again_and_let_go_where_nothing_fits_it() -> None:
    snapshot = Snapshot()
    snapshot.make_room(state(0.0))
    made = {storage.data_ptr() for each in snapshot._room.values() for storage in each}
    for value in (1.0, 2.0):
        own = snapshot.of(state(value))
        assert {own["weight"].data_ptr(), own["more"][0].data_ptr()} == made
        assert own["weight"].eq(value).all()
    snapshot.of({"weight": torch.zeros(5)})
    assert sum(map(len, snapshot._room.values())) == 1
