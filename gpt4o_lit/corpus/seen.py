"""Which documents came before, at about 8 bytes a document."""

from array import array
from bisect import bisect_left

import numpy as np

PARTITIONS = 256
PENDING = 4096


class Seen:
    """A set of digests, of which 8 bytes count.

    A small hash set in front of sorted arrays, one per first byte.
    """

    def __init__(self) -> None:
        self._pending: list[set[int]] = [set() for _ in range(PARTITIONS)]
        self._sorted = [array("Q") for _ in range(PARTITIONS)]

    def add(self, digest: bytes) -> bool:
        """Remember the digest; True where it is new."""
        value = int.from_bytes(digest[:8], "big")
        pending, ordered = self._pending[digest[0]], self._sorted[digest[0]]
        place = bisect_left(ordered, value)
        if value in pending or (place < len(ordered) and ordered[place] == value):
            return False
        pending.add(value)
        if len(pending) >= PENDING:
            self._merge(digest[0])
        return True

    def _merge(self, partition: int) -> None:
        fresh = np.fromiter(self._pending[partition], dtype=np.uint64)
        merged = np.concatenate([np.frombuffer(self._sorted[partition], dtype=np.uint64), fresh])
        merged.sort()
        self._sorted[partition] = array("Q", merged.tobytes())
        self._pending[partition] = set()
