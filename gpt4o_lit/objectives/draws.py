"""Random numbers by row, the same in whatever batch and on whatever process a row is read.

Shapes: B rows.
"""

import numpy as np
import torch
from torch import Tensor

# SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014), in
# PyTorch's signed integers, whose sums and products wrap around.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


class Draws:
    """Uniform random numbers for the rows of a batch.

    A number follows from the key, the place of its row and how many the row has drawn before, and
    from nothing else, so that rows may be spread over batches and processes as one likes.

    Args:
        key: Any integers, such as a seed and an epoch.
        places_B: int64, the place of each row among all that share the key; where it is, numbers
            are drawn.
    """

    def __init__(self, key: tuple[int, ...], places_B: Tensor) -> None:
        words = [word for each in key for word in (each & 0xFFFFFFFF, each >> 32)]
        state = np.random.SeedSequence(words).generate_state(1, np.uint64).view(np.int64)
        self._rows_B1 = _mixed(int(state[0]) + (places_B[:, None] + 1) * _GOLDEN)
        self._drawn = 0

    @property
    def device(self) -> torch.device:
        """Where the numbers are."""
        return self._rows_B1.device

    def rand(self, *shape: int) -> Tensor:
        """Numbers in [0, 1), each of the 2^24 that float32 tells apart as likely: (B, *shape)."""
        count = int(np.prod(shape))
        first, self._drawn = self._drawn + 1, self._drawn + count
        steps_N = torch.arange(first, first + count, device=self.device) * _GOLDEN
        bits_BN = _mixed(self._rows_B1 + steps_N)
        return (_shifted(bits_BN, 40).float() / 2**24).view(len(bits_BN), *shape)


def _mixed(bits: Tensor) -> Tensor:
    """Every bit of the result hangs on every bit of the argument."""
    bits = (bits ^ _shifted(bits, 30)) * _FIRST
    bits = (bits ^ _shifted(bits, 27)) * _SECOND
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, places: int) -> Tensor:
    """To the right, zeros coming in on the left."""
    return (bits >> places) & ((1 << (64 - places)) - 1)
