"""Batches of pairs of like length, so that little of them is padding.

Shapes: N pairs.
"""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

CHUNKS = (1, 4, 16, 64)
"""Batches whose pairs of like source are sorted by target once more: whichever pads the least."""


class Buckets:
    """Cuts pairs into batches of at most so many tokens, padding included.

    Pairs are sorted by the length of their source, runs of some batches of them by the length of
    their target. The sizes of the batches follow from the lengths alone, so that each epoch has
    equally many; which of the pairs of equal lengths go together is drawn anew.

    Args:
        lengths: int (N, 2): tokens of source and target.
        batch_tokens: Most tokens of a batch: pairs times its longest source and longest target
            together. A pair that is longer is a batch of its own.
    """

    def __init__(self, lengths: Array, batch_tokens: int) -> None:
        self.lengths, self.batch_tokens = lengths, batch_tokens
        ways = [(self._cut(run), run) for run in CHUNKS]
        costs = [self._padded(*way) for way in ways]
        self.bounds, self._run = ways[int(np.argmin(costs))]

    def __len__(self) -> int:
        """How many batches there are."""
        return len(self.bounds) - 1

    @property
    def padding(self) -> float:
        """The share of all tokens that is padding."""
        return 1 - float(self.lengths.sum()) / max(1, self._padded(self.bounds, self._run))

    def batches(self, seed: int | tuple[int, ...] | None) -> list[Array]:
        """The pairs of each batch; the batches in an order of the seed's, or by length."""
        if seed is None:
            order, turns = self._sorted(self._run), np.arange(len(self))
        else:
            random = np.random.default_rng(seed)
            order = self._sorted(self._run, random.permutation(len(self.lengths)))
            turns = random.permutation(len(self))
        return [order[self.bounds[turn] : self.bounds[turn + 1]] for turn in turns]

    def _sorted(self, run: int, among: Array | None = None) -> Array:
        """All pairs by length; of equal lengths, in the order in which they stand in `among`."""
        among = np.arange(len(self.lengths)) if among is None else among
        source, target = self.lengths[among].T
        order = among[np.lexsort((target, source))]
        if run == 1 or not len(order):
            return order
        size = max(1, round(run * self.batch_tokens / max(1.0, self.lengths.sum(1).mean())))
        source, target = self.lengths[order].T
        return order[np.lexsort((source, target, np.arange(len(order)) // size))]

    def _cut(self, run: int) -> Array:
        """Where each batch begins among the sorted pairs, and the last one ends."""
        bounds, longest = [0], (0, 0)
        for number, (source, target) in enumerate(self.lengths[self._sorted(run)].tolist()):
            longest = max(longest[0], source), max(longest[1], target)
            count = number + 1 - bounds[-1]
            if count > 1 and count * sum(longest) > self.batch_tokens:
                bounds.append(number)
                longest = source, target
        return np.array([*bounds, len(self.lengths)])

    def _padded(self, bounds: Array, run: int) -> int:
        """Tokens of all batches with their padding."""
        longest = np.maximum.reduceat(self.lengths[self._sorted(run)], bounds[:-1])
        return int((longest.sum(1) * np.diff(bounds)).sum())
