"""A CPU's heap played through: what a step's tensors come to with the gaps between them."""

from bisect import bisect_left, insort
from dataclasses import dataclass, field

STEPS = 3
"""Until which a heap grows much: the second has an optimizer's state in the way."""

# glibc's malloc: sizes are of 16 bytes and 8 more; where a block shall lie at a multiple of 64, one
# that is longer by 96 is looked for, and what is left before and behind is given back.
UNIT, HEADER, ALIGNMENT, LEAST = 16, 8, 64, 32


@dataclass
class Trace:
    """What is taken from a heap (a number and its bytes) and given back (the number, 0), in order:
    in building a network, in a forward, in a backward and in an optimizer's step."""

    events: list[tuple[int, int]] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """Where building, forward, backward and the optimizer's step end."""

    def take(self, nbytes: int) -> int:
        """The number of what is taken."""
        self.events.append((len(self.events), nbytes))
        return len(self.events) - 1

    def give(self, number: int) -> None:
        """Give it back."""
        self.events.append((number, 0))

    def end_part(self) -> None:
        """What comes next is of the next part."""
        self.ends.append(len(self.events))

    def steps(self, count: int) -> list[tuple[int, int]]:
        """So many steps, of which the first is the one that was played: those behind it take what
        it took but for the optimizer's state, and give the gradients of the step before back
        between forward and backward, as Lightning does."""
        forward, backward, update = map(slice, self.ends[:-1], self.ends[1:])
        played = self.events[: self.ends[-1]]
        given = {number for number, size in played if not size}
        gradients = [n for n, size in played[backward] if size and n not in given]
        state = {n for n, size in played[update] if size and n not in given}
        step = [
            *played[forward],
            *((number, 0) for number in gradients),
            *played[backward],
            *(event for event in played[update] if event[0] not in state),
        ]
        return played + (count - 1) * step


def extent(events: list[tuple[int, int]]) -> int:
    """How far a heap reaches that never shrinks, once all of it was taken and given back."""
    heap, places = Heap(), {}
    for number, size in events:
        if size:
            places[number] = heap.take(size)
        elif number in places:
            heap.give(places.pop(number))
    return heap.extent


class Heap:
    """As glibc's malloc manages it: the smallest gap that is large enough is taken, else the end is
    moved; neighbouring gaps are one. `posix_memalign` before glibc 2.38 does not see that a gap
    which a block of the same size has left would do without anything before and behind it.

    Small objects, which lie in gaps and keep their neighbours apart, are not played: with them it
    reaches about a tenth farther.
    """

    def __init__(self) -> None:
        self.extent = 0
        """The farthest that the end has been."""
        self._end = 0
        self._gaps: list[tuple[int, int]] = []  # size and start, in order
        self._sizes: dict[int, int] = {}  # of gaps, by their start
        self._starts: dict[int, int] = {}  # of gaps, by their end
        self._taken: dict[int, int] = {}

    def take(self, nbytes: int) -> int:
        """Where a block of so many bytes lies."""
        size = max(LEAST, _units(nbytes + HEADER))
        whole = _units(size + ALIGNMENT + LEAST + HEADER)
        found = bisect_left(self._gaps, (whole, -1))
        if found < len(self._gaps):
            whole, start = self._gaps[found]
            self._close(start)
        else:
            start = self._end
            self._end += whole
            self.extent = max(self.extent, self._end)
        aligned = -(-(start + UNIT) // ALIGNMENT) * ALIGNMENT - UNIT
        if start < aligned < start + LEAST:
            aligned += ALIGNMENT
        left = start + whole - aligned
        if left > size + LEAST:
            self._open(aligned + size, left - size)
            left = size
        if aligned > start:
            self._open(start, aligned - start)
        self._taken[aligned] = left
        return aligned

    def give(self, start: int) -> None:
        """Give a block back."""
        self._open(start, self._taken.pop(start))

    def _open(self, start: int, size: int) -> None:
        end = start + size
        if start in self._starts:
            start = self._close(self._starts[start])
        if end in self._sizes:
            after = end
            end += self._sizes[after]
            self._close(after)
        if end == self._end:
            self._end = start
            return
        self._sizes[start], self._starts[end] = end - start, start
        insort(self._gaps, (end - start, start))

    def _close(self, start: int) -> int:
        size = self._sizes.pop(start)
        del self._starts[start + size]
        del self._gaps[bisect_left(self._gaps, (size, start))]
        return start


def _units(nbytes: int) -> int:
    return -(-nbytes // UNIT) * UNIT
