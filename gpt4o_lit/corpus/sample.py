"""A seeded sample of the training text, of bounded size, in one pass."""

import heapq
import random
from collections.abc import Iterable

from gpt4o_lit.corpus.config import CorpusConfig
from gpt4o_lit.corpus.documents import Skips
from gpt4o_lit.corpus.encode import unit_bounds
from gpt4o_lit.corpus.progress import progress_bar
from gpt4o_lit.corpus.route import Piece, Router
from gpt4o_lit.corpus.sources import SourceFile, list_files

CHUNK = 4096


def sample_texts(pieces: Iterable[Piece], sample_bytes: int, seed: int) -> list[str]:
    """At most sample_bytes of the train pieces, in chunks drawn evenly, in the text's order."""
    draw = random.Random(seed).random
    heap: list[tuple[float, int, bytes]] = []
    size = number = 0
    for piece in pieces:
        if piece.split != "train":
            continue
        for start, stop in unit_bounds(piece.text, 0, len(piece.text), CHUNK):
            chunk = piece.text[start:stop]
            number += 1
            # The chunks with the smallest draws stay, so the largest are on top to be dropped.
            heapq.heappush(heap, (-draw(), number, chunk))
            size += len(chunk)
            while size > sample_bytes and len(heap) > 1:
                size -= len(heapq.heappop(heap)[2])
    return [chunk.decode() for _, _, chunk in sorted(heap, key=lambda entry: entry[1])]


def sample_files(
    config: CorpusConfig, files: list[SourceFile], sample_bytes: int, seed: int, progress: bool
) -> list[str]:
    """The sample out of listed files."""
    router = Router(config, files, Skips(config.on_error))
    with progress_bar(sum(file.size for file in files), "sampling", progress) as bar:
        return sample_texts(router.pieces(bar.update), sample_bytes, seed)


def sample_sources(
    config: CorpusConfig, sample_bytes: int, seed: int, progress: bool = False
) -> list[str]:
    """The sample out of the config's sources, where no corpus is built."""
    return sample_files(config, list_files({"": config.sources}), sample_bytes, seed, progress)
