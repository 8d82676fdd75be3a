"""A heap that is played through: no block lies on another, and glibc's own reaches as far."""

import platform
import random
import subprocess
import sys

import pytest

from gpt4o_lit.evaluation.heap import ALIGNMENT, HEADER, UNIT, Heap, Trace, extent

LIBC, VERSION = platform.libc_ver()

# Takes and gives back what it is told by posix_memalign, and tells how far glibc's heap got.
REAL = """
import ctypes
import sys

libc = ctypes.CDLL(None)
libc.mallopt(-4, 0)  # M_MMAP_MAX
libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
libc.free.argtypes = [ctypes.c_void_p]
names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
fields = [(name, ctypes.c_size_t) for name in names.split()]
Info = type("Info", (ctypes.Structure,), {"_fields_": fields})
libc.mallinfo2.restype = Info
places = {}
events = [tuple(map(int, line.split())) for line in sys.stdin]
before = libc.mallinfo2().arena
for number, size in events:
    if size:
        place = places[number] = ctypes.c_void_p()
        assert not libc.posix_memalign(ctypes.byref(place), *map(ctypes.c_size_t, (64, size)))
    else:
        libc.free(places.pop(number))
print(libc.mallinfo2().arena - before)
"""


def random_events(seed: int, count: int = 800) -> list[tuple[int, int]]:
    """Blocks of a few sizes, as a network has them, half of them given back in a while."""
    draw, live, events = random.Random(seed), [], []
    sizes = [draw.randrange(1 << 12, 1 << 22) for _ in range(6)]
    for number in range(count):
        events.append((number, draw.choice(sizes)))
        live.append(number)
        while len(live) > 40 or (live and draw.random() < 0.4):
            events.append((live.pop(draw.randrange(len(live))), 0))
    return events


def most_in_use(events: list[tuple[int, int]]) -> int:
    sizes, live, most = dict[int, int](), 0, 0
    for number, size in events:
        live += size or -sizes[number]
        sizes[number] = size
        most = max(most, live)
    return most


@pytest.mark.parametrize("seed", range(5))
def test_blocks_are_aligned_and_lie_on_no_other(seed: int) -> None:
    heap, taken = Heap(), dict[int, tuple[int, int]]()
    for number, size in random_events(seed):
        if size:
            start = heap.take(size)
            assert (start + UNIT) % ALIGNMENT == 0
            assert start + size + HEADER <= heap.extent
            assert all(start + size <= s or e <= start for s, e in taken.values())
            taken[number] = start, start + size
        else:
            heap.give(taken.pop(number)[0])
    for start, _ in taken.values():
        heap.give(start)
    reached = heap.extent
    heap.take(reached - 2 * (ALIGNMENT + UNIT) - HEADER)
    assert heap.extent == reached  # neighbours had become one


def test_a_gap_of_the_same_size_is_too_small_and_its_neighbour_helps() -> None:
    heap = Heap()
    first, second, _ = heap.take(4096), heap.take(4096), heap.take(4096)
    heap.give(first)
    assert heap.take(4096) > second
    heap.give(second)
    assert heap.take(4096) < second


@pytest.mark.skipif(
    LIBC != "glibc" or tuple(map(int, VERSION.split("."))) >= (2, 38),
    reason="of the malloc of glibc before 2.38",
)
@pytest.mark.parametrize("seed", range(3))
def test_glibc_reaches_as_far_and_a_little_farther(seed: int) -> None:
    """By small objects in its gaps, which differ from run to run; what is in use says less."""
    events = random_events(seed)
    given = "\n".join(f"{number} {size}" for number, size in events)
    told = subprocess.run(
        [sys.executable, "-c", REAL], input=given, check=True, capture_output=True, text=True
    )
    real = int(told.stdout)
    assert most_in_use(events) < extent(events) < real < 1.35 * extent(events)


def test_later_steps_have_the_state_in_the_way_and_the_last_gradients_until_the_backward() -> None:
    trace = Trace()
    weight = trace.take(100)
    trace.end_part()
    kept = trace.take(200)
    trace.end_part()
    gradient = trace.take(300)
    trace.give(kept)
    trace.end_part()
    state, work = trace.take(400), trace.take(500)
    trace.give(work)
    trace.end_part()
    trace.give(weight)  # once the network is gone; of no step
    first = [(weight, 100), (kept, 200), (gradient, 300), (kept, 0)]
    first += [(state, 400), (work, 500), (work, 0)]
    later = [(kept, 200), (gradient, 0), (gradient, 300), (kept, 0), (work, 500), (work, 0)]
    assert trace.steps(3) == first + 2 * later
