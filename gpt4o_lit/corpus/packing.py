"""The order in which windows are read: a pure function of seed and epoch."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def order(num_windows: int, seed: int, epoch: int) -> Array:
    """int64 (num_windows,): every window once, in an order of its own for each seed and epoch."""
    return np.random.default_rng([seed, epoch]).permutation(num_windows)


def shard(order: Array, rank: int, world: int, start: int = 0) -> Array:
    """The windows of one rank, from the `start`-th window of the whole order on.

    Ranks take turns, so the windows start .. start + G are one global batch of G for any number of
    ranks. What does not divide among the ranks at the end is left out, so all have equally many.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank ({rank}) must be in 0..{world - 1}; world is {world}")
    if not 0 <= start <= len(order):
        raise ValueError(f"start ({start}) must be in 0..{len(order)}, the number of windows")
    end = start + (len(order) - start) // world * world
    return order[start + rank : end : world]
