"""Which split a document, or a part of one, goes to."""

from collections.abc import Iterator

from gpt4o_lit.corpus.config import CorpusConfig
from gpt4o_lit.corpus.documents import Document

Piece = tuple[str, bytes, bool, bool]
"""Split, text, whether a document opens with it, whether one closes with it."""


def assign(document: Document, split: str, config: CorpusConfig) -> Iterator[Piece]:
    """The pieces of a document with their splits; `split` is given by its source, or empty."""
    if not split and config.split == "position":
        yield from _by_position(document, config)
        return
    yield from _marked(split or _by_hash(document.digest, config), document.pieces())


def _by_hash(digest: bytes, config: CorpusConfig) -> str:
    place = int.from_bytes(digest, "big") / 2**64
    if place < config.valid_share:
        return "valid"
    return "test" if place < config.valid_share + config.test_share else "train"


def _by_position(document: Document, config: CorpusConfig) -> Iterator[Piece]:
    """The first characters train, the next valid, the last test."""
    train_end = int(document.num_chars * (1 - config.valid_share - config.test_share))
    valid_end = int(document.num_chars * (1 - config.test_share))
    bounds = [("train", train_end), ("valid", valid_end), ("test", document.num_chars)]
    texts: dict[str, list[bytes]] = {split: [] for split, _ in bounds}
    place = 0
    for piece in document.pieces():
        text = piece.decode()
        start = place
        for split, end in bounds:
            texts[split].append(text[max(0, place - start) : max(0, end - start)].encode())
            place = max(place, min(end, start + len(text)))
    for split, _ in bounds:
        yield from _marked(split, (text for text in texts[split] if text))


def _marked(split: str, pieces: Iterator[bytes]) -> Iterator[Piece]:
    held, opens = next(pieces, None), True
    while held is not None:
        following = next(pieces, None)
        yield split, held, opens, following is None
        held, opens = following, False
