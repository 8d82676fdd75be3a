"""Send each document to its split, and leave out what came before."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from gpt4o_lit.corpus.config import CorpusConfig
from gpt4o_lit.corpus.documents import Document, Skips, read_documents
from gpt4o_lit.corpus.seen import Seen
from gpt4o_lit.corpus.sources import SourceFile


class Piece(NamedTuple):
    """A run of text of one document in one split; a long document has many."""

    split: str
    text: bytes
    opens: bool
    closes: bool
    digest: bytes
    """Digest of the whole document."""


@dataclass
class Router:
    """All pieces of all files in their one order, whoever asks."""

    config: CorpusConfig
    files: list[SourceFile]
    skips: Skips = field(default_factory=Skips)
    num_duplicates: int = 0
    digests: dict[str, str] = field(default_factory=dict)
    """By path, those of the files that came by as one document."""

    def pieces(self, advance: Callable[[int], None]) -> Iterator[Piece]:
        """The pieces; `advance` is told how many bytes of the files were read."""
        seen = Seen() if self.config.deduplicate else None
        valid, test = self.config.valid_share, self.config.test_share
        for file in self.files:
            by_position = self.config.split == "position" and not file.split
            for document in self._documents(file, advance):
                if document.text is not None and len(document.text) == file.size:
                    self.digests[file.path] = document.digest.hex()
                # Test and valid files come first and stay whole; train loses what they hold.
                if seen and not seen.add(document.digest) and not file.split:
                    self.num_duplicates += 1
                    continue
                if document.text is None or by_position:
                    yield from _flagged(self._parts(document, file.split), document.digest)
                else:  # the same in short, for text of very many documents
                    split = file.split or split_by_hash(document.digest, valid, test)
                    yield Piece(split, document.text, True, True, document.digest)
            if file.changed():
                raise ValueError(f"{file.name} changed while it was read; run the command again")

    def _documents(self, file: SourceFile, advance: Callable[[int], None]) -> Iterator[Document]:
        config = self.config
        return read_documents(file, config.documents, config.text_field, self.skips, advance)

    def _parts(self, document: Document, split: str) -> Iterable[tuple[str, bytes]]:
        if not split and self.config.split == "position":
            return cut_by_position(document, self.config.valid_share, self.config.test_share)
        name = split or split_by_hash(
            document.digest, self.config.valid_share, self.config.test_share
        )
        return ((name, text) for text in document.pieces())


def split_by_hash(digest: bytes, valid_share: float, test_share: float) -> str:
    """The split of a document by its content alone, so that it stays there when others come."""
    place = int.from_bytes(digest[:8], "little") / 2**64
    if place < test_share:
        return "test"
    return "valid" if place < test_share + valid_share else "train"


def cut_by_position(
    document: Document, valid_share: float, test_share: float
) -> Iterator[tuple[str, bytes]]:
    """The first characters to train, the next to valid, the last to test."""
    # round() undoes the binary dust of 1 - 0.1, so that 90 % of n is int(n * 0.9).
    valid_at = int(document.num_chars * round(1 - valid_share - test_share, 12))
    test_at = int(document.num_chars * round(1 - test_share, 12))
    bounds = (("train", 0, valid_at), ("valid", valid_at, test_at), ("test", test_at, None))
    at = 0
    for piece in document.pieces():
        text = piece.decode()
        for name, low, high in bounds:
            stop = len(text) if high is None else max(0, high - at)
            if part := text[max(0, low - at) : stop]:
                yield name, part.encode()
        at += len(text)


def _flagged(parts: Iterable[tuple[str, bytes]], digest: bytes) -> Iterator[Piece]:
    """Mark where the document opens and closes in each split."""
    previous, waiting = "", None
    for split, text in parts:
        if waiting:
            yield Piece(*waiting, waiting[0] != split, digest)
        waiting = (split, text, split != previous)
        previous = split
    if waiting:
        yield Piece(*waiting, True, digest)
