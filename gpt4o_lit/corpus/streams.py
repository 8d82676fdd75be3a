"""The bytes of a source file, decompressed, and the lines in them; nothing here holds much."""

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import zstandard

from gpt4o_lit.corpus.sources import SourceFile

Stream = io.BufferedIOBase
Advance = Callable[[int], None]
BUFFER = 1 << 20
# Little enough that even what packs a thousandfold unpacks to a few megabytes.
PACKED = 1 << 14
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class _Counted(io.RawIOBase):
    """A file that tells how many of its bytes were read."""

    def __init__(self, path: str, advance: Advance) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  closed in close()
        self._advance = advance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer) or 0
        self._advance(count)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def open_stream(file: SourceFile, advance: Advance) -> Iterator[Stream]:
    """The file's bytes, decompressed; damaged compression raises OSError."""
    with io.BufferedReader(_Counted(file.path, advance), BUFFER) as raw:
        if file.compression == ".gz":
            yield io.BufferedReader(_Unpacked(gzip.GzipFile(fileobj=raw)), BUFFER)
        elif file.compression == ".zst":
            yield io.BufferedReader(_Unpacked(_Frames(raw)), BUFFER)
        else:
            yield raw


class _Frames:
    """The zstd frames of a file in a row; unlike zstandard's reader it notices a missing end."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self._frame, self._fed = raw, zstandard.ZstdDecompressor().decompressobj(), False
        self._ready = memoryview(b"")

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            packed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._fed = zstandard.ZstdDecompressor().decompressobj(), False
            packed = packed or self._raw.read(PACKED)
            if not packed:
                if self._fed:
                    raise OSError("the last zstd frame has no end")
                return 0
            self._fed = True
            self._ready = memoryview(self._frame.decompress(packed))
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count


class _Unpacked(io.RawIOBase):
    """A decompressor as a raw file; its damage is always an OSError."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return int(self._reader.readinto(buffer))
        except (EOFError, zlib.error, zstandard.ZstdError) as error:
            raise OSError(str(error)) from error


def numbered_lines(stream: Stream, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Lines with their number from 1, each with its line end; a byte order mark is left out.

    A line of more than `limit` bytes is None.
    """
    number = 0
    while line := stream.readline(limit + 1):
        number += 1
        if len(line) <= limit:
            yield number, line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(BUFFER)
        yield number, None


def line_parts(stream: Stream, limit: int) -> Iterator[tuple[int, int, bytes]]:
    """Number from 1, offset and bytes of each line; one of more than `limit` bytes in parts.

    The last part of a line has its line end. A byte order mark is left out.
    """
    number, at, ended = 0, 0, True
    while part := stream.readline(limit):
        number += ended
        ended = part.endswith(b"\n")
        size = len(part)
        if at == 0 and part.startswith(BYTE_ORDER_MARK):
            part, at, size = part[3:], 3, size - 3
        yield number, at, part
        at += size
