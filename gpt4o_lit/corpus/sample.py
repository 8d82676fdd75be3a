"""A seeded sample of the training text, of bounded size, in one pass."""

import heapq
import random
from collections.abc import Iterable

from gpt4o_lit.corpus.encode import cut_units
from gpt4o_lit.corpus.route import Piece

CHUNK = 4096


def sample_texts(pieces: Iterable[Piece], sample_bytes: int, seed: int) -> list[str]:
    """At most sample_bytes of the train pieces, in chunks drawn evenly, in the order of the text."""
    draw = random.Random(seed).random
    heap: list[tuple[float, int, bytes]] = []
    size = number = 0
    for piece in pieces:
        if piece.split != "train":
            continue
        for chunk in cut_units(piece.text, CHUNK):
            number += 1
            # The chunks with the smallest draws stay, so the largest are on top to be dropped.
            heapq.heappush(heap, (-draw(), number, chunk))
            size += len(chunk)
            while size > sample_bytes and len(heap) > 1:
                size -= len(heapq.heappop(heap)[2])
    return [chunk.decode() for _, _, chunk in sorted(heap, key=lambda entry: entry[1])]
