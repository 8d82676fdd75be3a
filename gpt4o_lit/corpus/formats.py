"""Open compressed files and read the text field of .jsonl, .csv and .parquet, row by row."""

import csv
import gzip
import io
import json
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import zstandard

from gpt4o_lit.corpus.sources import SourceFile

Stream = io.BufferedIOBase
Advance = Callable[[int], None]
Handle = Callable[[str, str], None]
LONGEST_LINE = 256 << 20
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


def read_rows(
    file: SourceFile, text_field: str, handle: Handle, advance: Advance
) -> Iterator[bytes]:
    """The text of each row as UTF-8; what cannot be read goes to `handle` by kind and message."""
    if file.format == ".parquet":
        yield from _parquet(file, text_field, handle, advance)
        return
    with open_stream(file, advance) as stream:
        reader = _jsonl if file.format == ".jsonl" else _csv
        yield from reader(stream, file.name, text_field, handle)


def _jsonl(stream: Stream, name: str, text_field: str, handle: Handle) -> Iterator[bytes]:
    for number, line in numbered_lines(stream, name):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode())
        except UnicodeDecodeError as error:
            handle("not UTF-8", f"{name}:{number} is not UTF-8 ({error.reason}); convert the file")
            continue
        except ValueError as error:
            handle("broken JSON", f"{name}:{number} is broken JSON ({error}); mend the line")
            continue
        if not isinstance(row, dict):
            handle("broken JSON", f"{name}:{number} is no JSON object; write one object a line")
            continue
        yield from _field(row, text_field, f"{name}:{number}", handle)


def _csv(stream: Stream, name: str, text_field: str, handle: Handle) -> Iterator[bytes]:
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader(_decoded(stream, name, handle), strict=True)
    try:
        if text_field not in (reader.fieldnames or ()):
            handle("missing field", _missing(f"{name}:1", text_field, reader.fieldnames or ()))
            return
        for row in reader:
            yield from _field(row, text_field, f"{name}:{reader.line_num}", handle)
    except csv.Error as error:
        handle("broken CSV", f"{name}:{reader.line_num} is broken CSV ({error}); mend the line")


def _parquet(
    file: SourceFile, text_field: str, handle: Handle, advance: Advance
) -> Iterator[bytes]:
    # Imported here: only this format needs it, and each process would pay 60 MB for it.
    import pyarrow
    from pyarrow import parquet

    with _seekable(file) as stream:
        try:
            table = parquet.ParquetFile(stream)
            names = table.schema_arrow.names
            if text_field not in names:
                handle("missing field", _missing(file.name, text_field, names))
                return
            number, rows = 0, max(1, table.metadata.num_rows)
            for batch in table.iter_batches(batch_size=256, columns=[text_field]):
                for value in batch.column(0).to_pylist():
                    number += 1
                    yield from _field(
                        {text_field: value}, text_field, f"{file.name}:{number}", handle
                    )
                advance(file.size * number // rows - file.size * (number - len(batch)) // rows)
        except pyarrow.ArrowException as error:
            cause = " ".join(str(error).split())
            handle("damaged file", f"{file.name} is damaged ({cause}); write the file anew")


@contextmanager
def _seekable(file: SourceFile) -> Iterator[IO[bytes]]:
    if not file.compression:
        with Path(file.path).open("rb") as plain:
            yield plain
        return
    with tempfile.TemporaryFile() as copy, open_stream(file, lambda _: None) as packed:
        while block := packed.read(BUFFER):
            copy.write(block)
        copy.seek(0)
        yield copy


def _field(row: dict[str, Any], text_field: str, where: str, handle: Handle) -> Iterator[bytes]:
    text = row.get(text_field)
    if text_field not in row:
        handle("missing field", _missing(where, text_field, row))
    elif not isinstance(text, str):
        kind = type(text).__name__
        handle(
            "not text",
            f"{where}: {text_field} is {kind}; it must be text: choose another text_field",
        )
    else:
        try:
            yield text.encode()
        except UnicodeEncodeError:
            handle("not UTF-8", f"{where}: {text_field} holds half a surrogate pair; mend the text")


def _missing(where: str, text_field: str, names: Any) -> str:
    have = ", ".join(map(repr, names)) or "none"
    return f"{where} has no field {text_field!r} (it has {have}); set text_field to one of them"


def numbered_lines(stream: Stream, name: str) -> Iterator[tuple[int, bytes]]:
    """Lines with their number from 1, each with its line end; a byte order mark is left out."""
    number = 0
    while line := stream.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE:
            limit = LONGEST_LINE >> 20
            raise ValueError(f"{name}:{number} is longer than {limit} MB; break the line up")
        yield number, line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line


def _decoded(stream: Stream, name: str, handle: Handle) -> Iterator[str]:
    for number, line in numbered_lines(stream, name):
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            byte = f"0x{line[error.start]:02x}"
            handle("not UTF-8", f"{name}:{number} holds the byte {byte}, which is not UTF-8")
