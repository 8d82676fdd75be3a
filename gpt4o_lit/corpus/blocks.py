"""Large documents in blocks, so that nobody ever holds one."""

import codecs
import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

from gpt4o_lit.corpus.sources import SourceFile
from gpt4o_lit.corpus.streams import BYTE_ORDER_MARK, Stream, open_stream

BLOCK = 1 << 20


def cut_blocks(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes in blocks of about BLOCK that end behind a line, or at least behind a sign."""
    following = iter(parts)
    rest = next(following, b"")
    for part in following:
        block = rest + part
        cut = block.rfind(b"\n") + 1 or _before_sign(block)
        yield block[:cut]
        rest = block[cut:]
    if rest:
        yield rest


def chunks(file: SourceFile, advance: Callable[[int], None]) -> Iterator[bytes]:
    """A file, BLOCK bytes at a time, without its byte order mark."""
    with open_stream(file, advance) as stream:
        yield stream.read(BLOCK).removeprefix(BYTE_ORDER_MARK)
        while chunk := stream.read(BLOCK):
            yield chunk


def slices(data: bytes) -> Iterator[bytes]:
    """What is in memory, BLOCK bytes at a time."""
    return (data[start : start + BLOCK] for start in range(0, len(data), BLOCK))


def _before_sign(block: bytes) -> int:
    """Where the last sign of the block starts, so that a cut there halves no sign."""
    cut = len(block) - 1
    while cut > max(0, len(block) - 4) and block[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut


class Reread:
    """A second reader of a file that goes forward from document to document.

    So all the large documents of a compressed file are found in one pass.
    """

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._open = ExitStack()
        self._stream: Stream | None = None
        self._at = 0

    def __enter__(self) -> "Reread":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from start to stop of the unpacked file, BLOCK at a time."""
        if self._stream is None or self._at > start:
            self._open.close()
            self._stream = self._open.enter_context(open_stream(self._file, lambda _: None))
            self._at = 0
        while self._at < stop:
            end = start if self._at < start else stop
            chunk = self._stream.read(min(BLOCK, end - self._at))
            if not chunk:
                return
            self._at += len(chunk)
            if end == stop:
                yield chunk


class Scan:
    """Digest, length and characters of a large document, taken from its bytes as they pass.

    Where `trim` is set, line ends at its end are not part of it. `undecodable` words the fault from
    a line number, bytes that start on that line, and where among them the first bad one is.
    """

    def __init__(
        self, line: int, undecodable: Callable[[int, bytes, int], str], trim: bool
    ) -> None:
        self.size = 0
        self.num_chars = 0
        self.fault = ""
        """Says which byte is not UTF-8."""
        self._line, self._undecodable, self._trim = line, undecodable, trim
        self._hash = hashlib.sha256()
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._line_ends = b""

    def add(self, data: bytes) -> None:
        """Take the next bytes of the document."""
        data = self._line_ends + data
        text = data.rstrip(b"\r\n") if self._trim else data
        self._line_ends = data[len(text) :]
        self._count(text, False)

    def digest(self) -> bytes:
        """Digest of all that was added; nothing can be added any more."""
        self._count(b"", True)
        return self._hash.digest()[:16]

    def _count(self, text: bytes, final: bool) -> None:
        self._hash.update(text)
        self.size += len(text)
        if self.fault:
            return
        try:
            self.num_chars += len(self._decoder.decode(text, final))
        except UnicodeDecodeError as error:
            self.fault = self._undecodable(self._line, error.object, error.start)
        self._line += text.count(b"\n")
