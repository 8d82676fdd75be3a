"""Rows of one length that hold several examples each, so that next to nothing is padding.

Shapes: N examples.
"""

from bisect import bisect_left, insort
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Packs:
    """Packs examples into rows, and rows into batches.

    The longest first, each into the fullest row that has room for it (best fit decreasing). How
    rows are filled follows from the lengths alone, so that each epoch has equally many; which of
    the examples of equal lengths go where is drawn anew.

    Args:
        lengths: int (N,): tokens of each example.
        row_tokens: Tokens of a row.
        batch_tokens: Most tokens of a batch, padding included.

    Raises:
        ValueError: an example is longer than a row, or a row than a batch.
    """

    def __init__(self, lengths: Array, row_tokens: int, batch_tokens: int) -> None:
        longest = int(lengths.max(initial=0))
        if longest > row_tokens:
            raise ValueError(
                f"an example has {longest} tokens, more than a row ({row_tokens}); raise the row's"
            )
        if row_tokens > batch_tokens:
            raise ValueError(
                f"batch_tokens ({batch_tokens}) must have room for a row ({row_tokens}); raise it"
            )
        self.lengths, self.row_tokens = lengths, row_tokens
        self.rows_per_batch = batch_tokens // row_tokens
        self.rows = _best_fit(np.sort(lengths)[::-1].tolist(), row_tokens)
        """The examples of each row, as places among all of them by falling length."""

    def __len__(self) -> int:
        """How many batches there are."""
        return -(-len(self.rows) // self.rows_per_batch)

    @property
    def padding(self) -> float:
        """The share of all tokens that is padding, were each row as long as it may be."""
        return 1 - float(self.lengths.sum()) / max(1, self.row_tokens * len(self.rows))

    def batches(self, seed: int | tuple[int, ...] | None) -> list[list[Array]]:
        """The examples of each row of each batch, in an order of the seed's or as packed."""
        among, turns = np.arange(len(self.lengths)), np.arange(len(self.rows))
        if seed is not None:
            random = np.random.default_rng(seed)
            among, turns = random.permutation(among), random.permutation(turns)
        order = among[np.argsort(-self.lengths[among], kind="stable")]
        rows = [order[self.rows[turn]] for turn in turns]
        step = self.rows_per_batch
        return [rows[start : start + step] for start in range(0, len(rows), step)]


def _best_fit(lengths: list[int], room: int) -> list[list[int]]:
    """The places that each row holds, of lengths that fall."""
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # (room left, row), sorted
    for place, length in enumerate(lengths):
        found = bisect_left(open_rows, (length, 0))
        if found == len(open_rows):
            left, row = room, len(rows)
            rows.append([])
        else:
            left, row = open_rows.pop(found)
        rows[row].append(place)
        insort(open_rows, (left - length, row))
    return rows
