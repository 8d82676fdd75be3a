"""A bounded, seeded sample of the training text, to train a tokenizer on."""

import hashlib
import heapq
from collections.abc import Iterable, Iterator

CHUNK = 1 << 14


def sample_chunks(texts: Iterable[tuple[bytes, bytes]], sample_bytes: int, seed: int) -> list[str]:
    """Chunks of (digest, text) pairs, those whose keyed hash is lowest, in the order of the text.

    Which chunks are taken depends on text and seed alone; no more than `sample_bytes` and one chunk
    are ever held.
    """
    kept: list[tuple[int, int, str]] = []
    held, key = 0, seed.to_bytes(8, "big", signed=True)
    for order, (digest, chunk) in enumerate(_chunks(texts)):
        mark = hashlib.blake2b(digest + order.to_bytes(8, "big"), key=key, digest_size=8).digest()
        heapq.heappush(kept, (-int.from_bytes(mark, "big"), order, chunk.decode()))
        held += len(chunk)
        while held > sample_bytes and len(kept) > 1:
            held -= len(heapq.heappop(kept)[2].encode())
    return [chunk for _, _, chunk in sorted(kept, key=lambda item: item[1])]


def _chunks(texts: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    for digest, text in texts:
        start = 0
        while start < len(text):
            end = min(start + CHUNK, len(text))
            if end < len(text):
                end = text.rfind(b"\n", start, end) + 1 or end
                while end < len(text) and text[end] & 0xC0 == 0x80:
                    end -= 1
            yield digest, text[start:end]
            start = end
