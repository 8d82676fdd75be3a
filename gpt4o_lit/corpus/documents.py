"""Read the documents of a source file as UTF-8 bytes, without ever holding a large file."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from gpt4o_lit.corpus.formats import (
    BYTE_ORDER_MARK,
    Stream,
    numbered_lines,
    open_stream,
    read_rows,
)
from gpt4o_lit.corpus.sources import SourceFile

# A document above LARGE bytes is read twice, in blocks: once for its digest, once for its text.
LARGE = 4 << 20
BLOCK = 1 << 20


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
    """8 bytes that tell documents apart."""
    return hashlib.blake2b(data, digest_size=8).digest()


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
        if file.format in (".jsonl", ".csv", ".parquet"):
            texts = read_rows(file, text_field, skips.handle, advance)
            yield from (_small(text, len(text.decode())) for text in texts if text)
        elif file.format == ".py" or documents == "file":
            yield from _whole_file(file, skips, advance)
        else:
            with open_stream(file, advance) as stream:
                parts = _paragraphs if documents == "blank_line" else _lines
                yield from _decodable(parts(stream, file.name), file.name, skips)
    except OSError as error:
        skips.handle(
            "damaged file", f"{file.name} cannot be read to its end ({error}); mend the file"
        )


def _small(data: bytes, num_chars: int) -> Document:
    return Document(digest_of(data), num_chars, data)


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
        data = data.removeprefix(BYTE_ORDER_MARK)
        yield from _decodable(iter(((1, data),)), file.name, skips)
        return
    try:
        digest, num_chars = _scan(file)
    except UnicodeDecodeError as error:
        skips.handle("not UTF-8", error.reason)
        advance(file.size)
        return
    yield Document(digest, num_chars, None, lambda: _blocks(file, advance))


def _scan(file: SourceFile) -> tuple[bytes, int]:
    """Digest and characters of a large file; an undecodable byte is named in the error's reason."""
    digest, num_chars, line = hashlib.blake2b(digest_size=8), 0, 1
    for block in _blocks(file, lambda _: None):
        digest.update(block)
        try:
            num_chars += len(block.decode())
        except UnicodeDecodeError as error:
            error.reason = _undecodable(file.name, line, block, error.start)
            raise
        line += block.count(b"\n")
    return digest.digest(), num_chars


def _blocks(file: SourceFile, advance: Callable[[int], None]) -> Iterator[bytes]:
    """The file in blocks of about BLOCK bytes that end behind a line, or at least behind a sign."""
    with open_stream(file, advance) as stream:
        rest = stream.read(BLOCK).removeprefix(BYTE_ORDER_MARK)
        while block := stream.read(BLOCK):
            block = rest + block
            cut = block.rfind(b"\n") + 1 or _before_sign(block)
            yield block[:cut]
            rest = block[cut:]
        if rest:
            yield rest


def _before_sign(block: bytes) -> int:
    """Where the last sign of the block starts, so that a cut there halves no sign."""
    cut = len(block) - 1
    while cut > max(0, len(block) - 4) and block[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut


def _lines(stream: Stream, name: str) -> Iterator[tuple[int, bytes]]:
    for number, line in numbered_lines(stream, name):
        yield number, line.rstrip(b"\r\n")


def _paragraphs(stream: Stream, name: str) -> Iterator[tuple[int, bytes]]:
    lines: list[bytes] = []
    start = 1
    for number, line in numbered_lines(stream, name):
        if line.strip():
            start = start if lines else number
            lines.append(line)
        elif lines:
            yield start, b"".join(lines).rstrip(b"\r\n")
            lines = []
    if lines:
        yield start, b"".join(lines).rstrip(b"\r\n")


def _decodable(
    numbered: Iterator[tuple[int, bytes]], name: str, skips: Skips
) -> Iterator[Document]:
    for number, data in numbered:
        try:
            num_chars = len(data.decode())
        except UnicodeDecodeError as error:
            skips.handle("not UTF-8", _undecodable(name, number, data, error.start))
        else:
            if data:
                yield _small(data, num_chars)


def _undecodable(name: str, line: int, data: bytes, start: int) -> str:
    number = line + data.count(b"\n", 0, start)
    return (
        f"{name}:{number} holds the byte 0x{data[start]:02x}, which is not UTF-8; "
        "convert the file, or set on_error to skip"
    )
