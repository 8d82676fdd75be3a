"""Read the text field of .jsonl, .csv, .tsv and .parquet, row by row."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from gpt4o_lit.corpus.delimited import csv_rows, tab_rows
from gpt4o_lit.corpus.sources import SourceFile
from gpt4o_lit.corpus.streams import BUFFER, Advance, Stream, numbered_lines, open_stream

Handle = Callable[[str, str], None]
Text = tuple[bytes, int]
"""A text as UTF-8, and how many characters it has."""
# A row is parsed as a whole, which can take ten times its bytes.
LONGEST_LINE = 32 << 20
# So few that a batch of long texts is still little.
BATCH_ROWS = 32


def read_rows(
    file: SourceFile, text_field: str, handle: Handle, advance: Advance
) -> Iterator[Text]:
    """The text of each row; what cannot be read goes to `handle` by kind and message."""
    if file.format == ".parquet":
        yield from _parquet(file, text_field, handle, advance)
        return
    with open_stream(file, advance) as stream:
        if file.format == ".jsonl":
            yield from _jsonl(stream, file.name, text_field, handle)
        else:
            fields_of = csv_rows if file.format == ".csv" else tab_rows
            rows = fields_of(stream, file.name, LONGEST_LINE, handle)
            yield from _table(rows, file.name, text_field, handle)


def _jsonl(stream: Stream, name: str, text_field: str, handle: Handle) -> Iterator[Text]:
    for number, row in json_objects(stream, name, handle):
        where = f"{name}:{number}"
        if text_field not in row:
            handle("missing field", _missing(where, text_field, row))
        else:
            yield from _text(row[text_field], text_field, where, handle)


def json_objects(
    stream: Stream, name: str, handle: Handle, parse: Callable[[str], Any] = json.loads
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line and object of each line that is not blank; what is broken goes to `handle`.

    `parse` raises ValueError for a line that it cannot read.
    """
    for number, line in numbered_lines(stream, LONGEST_LINE):
        where = f"{name}:{number}"
        if line is None:
            limit = LONGEST_LINE >> 20
            handle("line too long", f"{where} is longer than {limit} MB; break the line up")
            continue
        if line.isspace():
            continue
        try:
            row = parse(line.decode())
        except (UnicodeDecodeError, UnicodeEncodeError) as error:
            handle("not UTF-8", f"{where} is not UTF-8 ({error.reason}); convert the file")
            continue
        except (ValueError, RecursionError) as error:
            handle("broken JSON", f"{where} is broken JSON ({error}); mend the line")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            handle("broken JSON", f"{where} is no JSON object; write one object a line")


def _table(
    rows: Iterator[tuple[int, list[str]]], name: str, text_field: str, handle: Handle
) -> Iterator[Text]:
    _, names = next(rows, (1, []))
    if text_field not in names:
        handle("missing field", _missing(f"{name}:1", text_field, names))
        return
    column = names.index(text_field)
    for number, row in rows:
        if column < len(row):
            yield from _text(row[column], text_field, f"{name}:{number}", handle)
        else:
            have = f"{len(row)} of {len(names)} fields"
            handle("missing field", f"{name}:{number} has {have}, no {text_field}; mend the row")


def _parquet(file: SourceFile, text_field: str, handle: Handle, advance: Advance) -> Iterator[Text]:
    for first, batch in parquet_batches(file, [text_field], handle, advance):
        column, is_text = _as_bytes(batch.column(0))
        for number, value in enumerate(column, first):
            read = _utf8 if is_text and value.is_valid else _text
            yield from read(value.as_py(), text_field, f"{file.name}:{number}", handle)


def parquet_batches(
    file: SourceFile, columns: list[str] | None, handle: Handle, advance: Advance
) -> Iterator[tuple[int, Any]]:
    """Batches of few rows, each with the number of its first; `columns` None are all of them."""
    # Imported here: only this format needs it, and each process would pay 60 MB for it.
    import pyarrow
    from pyarrow import parquet

    with _seekable(file) as stream:
        try:
            # Without these two, whole columns of a row group would be read ahead.
            table = parquet.ParquetFile(stream, pre_buffer=False, buffer_size=BUFFER)
            names = table.schema_arrow.names
            for column in columns or ():
                if column not in names:
                    handle("missing field", _missing(file.name, column, names))
                    return
            number, rows = 0, max(1, table.metadata.num_rows)
            for batch in table.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                yield number + 1, batch
                number += len(batch)
                advance(file.size * number // rows - file.size * (number - len(batch)) // rows)
        except pyarrow.ArrowException as error:
            handle("damaged file", damaged(file.name, error))


def damaged(name: str, error: Exception) -> str:
    """What to say of a file that Arrow cannot read."""
    return f"{name} is damaged ({' '.join(str(error).split())}); write the file anew"


def _as_bytes(column: Any) -> tuple[Any, bool]:
    """An Arrow array of strings as their bytes, which need not be UTF-8; others as they are."""
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_string(column.type):
        return column.view("binary"), True
    if types.is_large_string(column.type):
        return column.view("large_binary"), True
    return column, False


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


def _text(value: Any, text_field: str, where: str, handle: Handle) -> Iterator[Text]:
    if not isinstance(value, str):
        kind = type(value).__name__
        said = f"{where}: {text_field} is {kind}; it must be text: choose another text_field"
        handle("not text", said)
        return
    try:
        yield value.encode(), len(value)
    except UnicodeEncodeError:
        handle("not UTF-8", f"{where}: {text_field} holds half a surrogate pair; mend the text")


def _utf8(value: bytes, text_field: str, where: str, handle: Handle) -> Iterator[Text]:
    try:
        yield value, len(value.decode())
    except UnicodeDecodeError as error:
        byte = f"0x{value[error.start]:02x}"
        said = f"{where}: {text_field} holds the byte {byte}, which is not UTF-8; write it anew"
        handle("not UTF-8", said)


def _missing(where: str, text_field: str, names: Any) -> str:
    have = ", ".join(map(repr, names)) or "none"
    return f"{where} has no field {text_field!r} (it has {have}); set text_field to one of them"
