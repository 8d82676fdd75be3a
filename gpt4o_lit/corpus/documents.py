"""Read the documents of a source file as UTF-8 bytes, without ever holding a large file."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from gpt4o_lit.corpus.blocks import Reread, Scan, chunks, cut_blocks, slices
from gpt4o_lit.corpus.formats import read_rows
from gpt4o_lit.corpus.sources import SourceFile
from gpt4o_lit.corpus.streams import BYTE_ORDER_MARK, Stream, line_parts, open_stream

# A document above LARGE bytes is read twice, in blocks: once for its digest, once for its text.
LARGE = 4 << 20


@dataclass(slots=True)
class Document:
    """One text with the digest of its bytes; a large one gives its pieces anew on each call."""

    digest: bytes
    num_chars: int
    text: bytes | None
    """The text of a document that is not large."""
    blocks: Callable[[], Iterator[bytes]] | None = None
    """Reads a large one anew."""

    def pieces(self) -> Iterator[bytes]:
        """The text, a large one in blocks."""
        if self.text is not None:
            return iter((self.text,))
        assert self.blocks
        return self.blocks()


@dataclass(slots=True)
class Skips:
    """What to do with unreadable text, and how often it was done."""

    on_error: Literal["raise", "skip"] = "raise"
    counts: Counter[str] = field(default_factory=Counter)

    def handle(self, kind: str, message: str) -> None:
        """Raise the message, or count one skip of this kind."""
        if self.on_error == "raise":
            raise ValueError(message)
        self.counts[kind] += 1


def digest_of(data: bytes) -> bytes:
    """16 bytes that tell documents apart; of a whole file, those of its own digest."""
    return hashlib.sha256(data).digest()[:16]


def read_documents(
    file: SourceFile,
    documents: Literal["file", "line", "blank_line"],
    text_field: str,
    skips: Skips,
    advance: Callable[[int], None],
) -> Iterator[Document]:
    """The documents of one file in order; empty ones are left out.

    `advance` is told how many bytes of the file (as it lies on disk) were read.
    """
    try:
        if file.format in (".jsonl", ".csv", ".tsv", ".parquet"):
            texts = read_rows(file, text_field, skips.handle, advance)
            yield from (_in_memory(text, num_chars) for text, num_chars in texts if text)
        elif is_one_document(file, documents):
            yield from _whole_file(file, skips, advance)
        else:
            with open_stream(file, advance) as stream, Reread(file) as again:
                for run in _runs(stream, file.name, documents == "blank_line"):
                    yield from _small(run, skips) if run.scan is None else _large(run, again, skips)
    except OSError as error:
        skips.handle(
            "damaged file", f"{file.name} cannot be read to its end ({error}); mend the file"
        )


def is_one_document(file: SourceFile, documents: str) -> bool:
    """Whether all text of the file is one document."""
    return file.format == ".py" or (documents == "file" and file.format in (".txt", ".md"))


def is_one_small_document(file: SourceFile, documents: str) -> bool:
    """Whether the file's bytes come by in one part, as they are."""
    return is_one_document(file, documents) and not file.compression and file.size <= LARGE


def _in_memory(data: bytes, num_chars: int) -> Document:
    """A document that is in memory; a large one still goes on in blocks."""
    if len(data) <= LARGE:
        return Document(digest_of(data), num_chars, data)
    return Document(digest_of(data), num_chars, None, lambda: cut_blocks(slices(data)))


def _whole_file(
    file: SourceFile, skips: Skips, advance: Callable[[int], None]
) -> Iterator[Document]:
    read = 0

    def count(num_bytes: int) -> None:
        nonlocal read
        read += num_bytes

    with open_stream(file, count) as stream:
        data = stream.read(LARGE + 1)
    if len(data) <= LARGE:
        advance(read)
        whole = _Run(file.name, 1, 0, [data.removeprefix(BYTE_ORDER_MARK)])
        yield from _small(whole, skips, trim=False)
        return
    scan = Scan(1, partial(_undecodable, file.name), trim=False)
    for chunk in chunks(file, lambda _: None):
        scan.add(chunk)
    digest = scan.digest()
    if scan.fault:
        skips.handle("not UTF-8", scan.fault)
        advance(file.size)
        return
    yield Document(digest, scan.num_chars, None, lambda: cut_blocks(chunks(file, advance)))


@dataclass(slots=True)
class _Run:
    """Lines that make one document: their bytes while they are few, then only a scan of them."""

    name: str
    line: int
    start: int
    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    scan: Scan | None = None

    def add(self, part: bytes) -> None:
        self.size += len(part)
        if self.size <= LARGE:
            self.parts.append(part)
            return
        if self.scan is None:
            self.scan = Scan(self.line, partial(_undecodable, self.name), trim=True)
            for earlier in self.parts:
                self.scan.add(earlier)
            self.parts = []
        self.scan.add(part)


def _runs(stream: Stream, name: str, by_blank_lines: bool) -> Iterator[_Run]:
    """The lines of a text, each a run of its own, or all between two blank ones together."""
    run, last = None, 0
    for number, at, part in line_parts(stream, LARGE):
        starts, last = number > last, number
        is_blank = by_blank_lines and starts and part.isspace()
        if run and (is_blank or (starts and not by_blank_lines)):
            yield run
            run = None
        if not is_blank:
            run = run or _Run(name, number, at)
            run.add(part)
    if run:
        yield run


def _small(run: _Run, skips: Skips, trim: bool = True) -> Iterator[Document]:
    data = b"".join(run.parts)
    if trim:
        data = data.rstrip(b"\r\n")
    try:
        num_chars = len(data.decode())
    except UnicodeDecodeError as error:
        skips.handle("not UTF-8", _undecodable(run.name, run.line, data, error.start))
    else:
        if data:
            yield Document(digest_of(data), num_chars, data)


def _large(run: _Run, again: Reread, skips: Skips) -> Iterator[Document]:
    assert run.scan
    digest, stop = run.scan.digest(), run.start + run.scan.size
    if run.scan.fault:
        skips.handle("not UTF-8", run.scan.fault)
    else:
        yield Document(
            digest, run.scan.num_chars, None, lambda: cut_blocks(again.read(run.start, stop))
        )


def _undecodable(name: str, line: int, data: bytes, start: int) -> str:
    number = line + data.count(b"\n", 0, start)
    return (
        f"{name}:{number} holds the byte 0x{data[start]:02x}, which is not UTF-8; "
        "convert the file, or set on_error to skip"
    )
