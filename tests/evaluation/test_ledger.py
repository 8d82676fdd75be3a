"""A ledger counts what is there, leaves blank what is not, and draws whom no other beats."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4o_lit.evaluation.ledger import Entry, Plan
from gpt4o_lit.evaluation.ledger_views import figures, frontier, table, write

PARENT = Entry(
    run="runs/a/parent", parameters=1_000_000, nonzeros=1_000_000, bytes_on_disk=4_000_000,
    decode={1: 100.0}, bits_per_byte=1.5,
)  # fmt: skip
CHILD = Entry(
    run="runs/a/parent/compressed", parameters=1_000_000, nonzeros=900_000, bytes_on_disk=600_000,
    prefill_compiled={1: 9e3}, decode={1: 250.0}, decode_compiled={1: 700.0}, bits_per_byte=1.53,
)  # fmt: skip


def test_a_table_compares_with_the_parent_and_leaves_blank_what_is_not_known() -> None:
    lines = {line[:34].rstrip(): line[34:].split() for line in table([PARENT, CHILD]).splitlines()}
    assert lines["bytes on disk (MB)"] == ["4.0000", "0.6000", "(0.15x)"]
    assert lines["write tokens/s, batch 1"] == ["100.0", "250.0", "(2.50x)"]
    assert lines["write tokens/s, batch 1, compiled"] == ["700.0"]
    assert lines["read tokens/s, batch 1, compiled"] == ["9,000.0"]
    assert lines["bits per byte"] == ["1.5000", "1.5300", "(+2.00%)"]
    assert "peak memory (MB)" not in lines
    assert figures(PARENT)["peak memory (MB)"] is None


def test_what_is_written_down_is_what_was_measured(tmp_path: Path) -> None:
    write(tmp_path / "out", [PARENT, CHILD], Plan(rounds=3), {"texts": 7})
    told = json.loads((tmp_path / "out/ledger.json").read_text())
    assert told["entries"][1]["nonzeros"] == 900_000
    assert (told["texts"], told["plan"]["rounds"]) == (7, 3)
    assert (tmp_path / "out/pareto.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "out/ledger.txt").read_text() == table([PARENT, CHILD]) + "\n"


POINTS = st.lists(st.tuples(st.floats(1, 9), st.floats(1, 9)), min_size=1, max_size=12)


@given(points=POINTS, more=st.booleans())
def test_the_frontier_is_whom_no_other_beats(points: list[tuple[float, float]], more: bool) -> None:
    front = frontier(points, more_is_better=more)
    sign = -1 if more else 1

    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        no_worse = sign * one[0] <= sign * other[0] and one[1] <= other[1]
        return no_worse and one != other

    assert front
    assert not any(beats(one, other) for one in points for other in front)
    assert all(any(beats(one, other) for one in front) for other in set(points) - set(front))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_sizes": ()}, "batch_sizes"),
        ({"rounds": 0}, r"rounds \(0\)"),
        ({"price_per_hour": 0.0}, r"price_per_hour \(0\.0\) must be above 0"),
    ],
)
def test_plans_that_measure_nothing_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(**settings)
