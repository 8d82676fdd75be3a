"""Rows with named columns out of tables, JSON, Arrow files and aligned texts, one at a time."""

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import UnionType
from typing import Any

from gpt4o_lit.corpus.delimited import csv_rows, decoded, tab_rows
from gpt4o_lit.corpus.documents import Skips
from gpt4o_lit.corpus.formats import BATCH_ROWS, LONGEST_LINE, Handle, damaged, parquet_batches
from gpt4o_lit.corpus.json_rows import Numbered, json_array, json_lines
from gpt4o_lit.corpus.sources import SourceFile, identified, list_files
from gpt4o_lit.corpus.streams import numbered_lines, open_stream
from gpt4o_lit.corpus.template import value_of
from gpt4o_lit.tokenizer.load import nearest_name

Source = str | list[str] | dict[str, str]
"""A file, glob or folder, or several; or columns and the files whose lines belong together."""
TABLES = (".tsv", ".csv")
ROW_FORMATS = (*TABLES, ".jsonl", ".json", ".parquet", ".conll")
# In a folder that `datasets` saved: the names of its files in order; or of its splits.
STATE, SPLITS = "state.json", "dataset_dict.json"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Row:
    """The values of one row by column, and where it stands, for messages."""

    values: dict[str, Any]
    place: str
    """File and line, `train.tsv:12`; in .json, .parquet and .arrow the number of the row."""


def read_rows(
    source: Source,
    columns: list[str] | None = None,
    skips: Skips | None = None,
    fields: Mapping[str, type | UnionType] | None = None,
    note: Handle | None = None,
) -> Iterator[Row]:
    """The rows of a source, in the order of `files_of`.

    A source is a file, a glob or a folder of .tsv, .csv, .jsonl, .json (an array of objects),
    .parquet and .conll (a sentence is a row of two lists, `tokens` and `tags`), each also with .gz
    or .zst behind; or a folder that `datasets` wrote with save_to_disk; or several of these. A
    mapping of columns to text files makes a row of the lines that have the same number.


    `columns` names those of tables without a header line. A row must have all `fields`, each of
    its type (`object` for any); a name with dots stands for what is nested. What cannot be read
    goes to `skips`, which raises ValueError with file and line, or counts it by kind. `note` is
    told by kind and message what was read all the same: "Python literals", once per file.

    Raises FileNotFoundError or ValueError at once where the source is no source, and ValueError
    later for a file that means nothing as a whole: UTF-16, a header that is broken or repeats a
    name, an array above 1 GB, aligned files of different lengths.
    """
    handle = (skips or Skips()).handle
    rows: Iterable[Row]
    if not isinstance(source, dict):
        files = _files(source)
        _check_columns(columns, files, source)
        rows = chain.from_iterable(_read(file, columns, handle, note) for file in files)
    elif columns is None:
        rows = _aligned(_aligned_files(source), handle)
    else:
        raise ValueError(f"columns ({columns}) are named by the mapping already; leave them out")
    return _complete(rows, fields or {}, handle)


def files_of(source: Source) -> list[Path]:
    """The files that make up a source, in the order in which they are read.

    Raises FileNotFoundError or ValueError where the source is missing or holds none.
    """
    files = _aligned_files(source).values() if isinstance(source, dict) else _files(source)
    return [Path(file.path) for file in files]


def _files(source: str | list[str]) -> list[SourceFile]:
    """Each file once, however many of the sources name it."""
    sources = [source] if isinstance(source, str) else source
    if not sources:
        raise ValueError("the list of sources is empty; name a file, a glob or a folder")
    files = chain.from_iterable(map(_files_of_one, sources))
    return list({file.path: file for file in files}.values())


def _files_of_one(source: str) -> list[SourceFile]:
    place = Path(source).expanduser()
    if (place / SPLITS).is_file():
        splits = json.loads((place / SPLITS).read_text(encoding="utf-8"))["splits"]
        names = ", ".join(str(place / split) for split in splits)
        raise ValueError(f"folder {source} holds several splits; name one of {names}")
    if (place / STATE).is_file():
        state = json.loads((place / STATE).read_text(encoding="utf-8"))
        named_by = str(place / STATE)
        return [_file(place / each["filename"], named_by) for each in state["_data_files"]]
    return list_files({"": [source]}, formats=ROW_FORMATS)


def _aligned_files(source: dict[str, str]) -> dict[str, SourceFile]:
    if not source:
        raise ValueError("the mapping of columns to files is empty; name a file for each column")
    return {
        column: _file(Path(path).expanduser(), f"column {column}")
        for column, path in source.items()
    }


def _file(path: Path, named_by: str) -> SourceFile:
    if path.is_dir():
        raise ValueError(f"{path}, named by {named_by}, is a folder; name a file in it")
    if not path.is_file():
        raise FileNotFoundError(f"{path}, named by {named_by}, does not exist{nearest_name(path)}")
    return identified(str(path), str(path.absolute()), "", {})


def _check_columns(columns: list[str] | None, files: list[SourceFile], source: Source) -> None:
    if columns is None:
        return
    if not columns or len(set(columns)) < len(columns):
        raise ValueError(f"columns ({columns}) must be different names, at least one; mend them")
    if not any(file.format in TABLES for file in files):
        raise ValueError(
            f"columns ({columns}) are for .tsv and .csv without a header, and {source} holds "
            "neither; leave columns out"
        )


def _complete(
    rows: Iterable[Row], fields: Mapping[str, type | UnionType], handle: Handle
) -> Iterator[Row]:
    """The rows that have all fields, each of its type."""
    for row in rows:
        for name, kind in fields.items():
            try:
                value = value_of(row.values, name)
            except ValueError as error:
                handle("missing field", f"{row.place}: {error}")
                break
            if not isinstance(value, kind):
                have, must = type(value).__name__, getattr(kind, "__name__", kind)
                said = f"{row.place}: {name} is {have}; it must be {must}: mend the row"
                handle("wrong type", said)
                break
        else:
            yield row


def _read(
    file: SourceFile, columns: list[str] | None, handle: Handle, note: Handle | None
) -> Iterator[Row]:
    try:
        if file.format in (".arrow", ".parquet"):
            yield from _rows(_arrow_rows(file, handle), file)
            return
        with _open(file) as stream:
            if file.format in TABLES:
                numbered = _table(stream, file, columns, handle)
            elif file.format == ".jsonl":
                numbered = json_lines(stream, file.name, handle, note)
            elif file.format == ".conll":
                numbered = _sentences(stream, file.name, handle)
            else:
                numbered = json_array(stream, file.name, file.size, handle)
            yield from _rows(numbered, file)
    except OSError as error:
        handle("damaged file", _cut_off(file, error))


def _rows(numbered: Numbered, file: SourceFile) -> Iterator[Row]:
    return (Row(values, f"{file.name}:{number}") for number, values in numbered)


def _cut_off(file: SourceFile, error: OSError) -> str:
    return f"{file.name} cannot be read to its end ({error}); mend the file"


@contextmanager
def _open(file: SourceFile) -> Iterator[io.BufferedReader]:
    with open_stream(file, lambda _: None) as stream:
        assert isinstance(stream, io.BufferedReader)
        if stream.peek(2)[:2] in UTF_16:
            raise ValueError(f"{file.name} is UTF-16 and must be UTF-8; convert it to UTF-8")
        yield stream


def _table(
    stream: io.BufferedReader, file: SourceFile, columns: list[str] | None, handle: Handle
) -> Numbered:
    names: list[str] = list(columns or ())

    def tell(kind: str, message: str) -> None:
        if not names:  # without its header no row of a table means anything
            raise ValueError(message)
        handle(kind, message)

    if file.format == ".csv":
        rows = csv_rows(stream, file.name, LONGEST_LINE, tell)
    else:
        rows = tab_rows(stream, file.name, LONGEST_LINE, tell)
    for number, values in rows:
        where = f"{file.name}:{number}"
        if not names:
            names.extend(_header(values, where))
        elif values == columns:
            raise ValueError(f"{where} is a header with the names in columns; leave columns out")
        elif len(values) == len(names):
            yield number, dict(zip(names, values, strict=True))
        else:
            kind = "too few fields" if len(values) < len(names) else "too many fields"
            have = f"{len(values)} where {len(names)} belong ({', '.join(names)})"
            handle(kind, f"{where} has {kind}, {have}; mend the row")


def _header(names: list[str], where: str) -> list[str]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"{where} names the column {twice!r} twice; rename one, or where this line is data, "
            "give columns"
        )
    return names


def _sentences(stream: io.BufferedReader, name: str, handle: Handle) -> Numbered:
    """Sentences of CoNLL-2003's form: a word a line, its tag at the end, a blank line between."""
    first, whole = 1, True
    words: list[tuple[str, str]] = []
    for number, line in chain(numbered_lines(stream, LONGEST_LINE), [(0, b"\n")]):
        text = decoded(line, f"{name}:{number}", LONGEST_LINE, handle)
        fields = [] if text is None else text.split()
        whole = whole and text is not None
        if len(fields) == 1:
            handle("too few fields", f"{name}:{number} has a word and no tag; mend the line")
            whole = False
        elif fields and fields[0] != "-DOCSTART-":
            first = first if words else number
            words.append((fields[0], fields[-1]))
        elif text is not None:
            if words and whole:
                tokens, tags = zip(*words, strict=True)
                yield first, {"tokens": list(tokens), "tags": list(tags)}
            words, whole = [], True


def _arrow_rows(file: SourceFile, handle: Handle) -> Numbered:
    if file.format == ".parquet":
        batches = parquet_batches(file, None, handle, lambda _: None)
    else:
        batches = _arrow_batches(file, handle)
    for first, batch in batches:
        for number, values in enumerate(_values(batch), first):
            if values is None:
                where = f"{file.name}:{number}"
                handle("not UTF-8", f"{where} holds text that is not UTF-8; write it anew")
            else:
                yield number, values


def _values(batch: Any) -> list[dict[str, Any] | None]:
    """The rows of an Arrow batch; None where a text in one is not UTF-8."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        if len(batch) == 1:
            return [None]
        return [_values(batch.slice(at, 1))[0] for at in range(len(batch))]


def _arrow_batches(file: SourceFile, handle: Handle) -> Iterator[tuple[int, Any]]:
    """Batches of few rows, each with the number of its first."""
    # Imported here, as in formats.py, for its size.
    import pyarrow

    number = 1
    try:
        with pyarrow.memory_map(file.path) as mapped, pyarrow.ipc.open_stream(mapped) as stream:
            for batch in stream:
                for at in range(0, len(batch), BATCH_ROWS):
                    yield number + at, batch.slice(at, BATCH_ROWS)
                number += len(batch)
    except pyarrow.ArrowException as error:
        handle("damaged file", damaged(file.name, error))


def _aligned(files: dict[str, SourceFile], handle: Handle) -> Iterator[Row]:
    """Line n of each file as row n."""
    _require_equal_counts(files)
    first = next(iter(files.values()))
    with ExitStack() as stack:
        streams = [stack.enter_context(_open(file)) for file in files.values()]
        readers = [numbered_lines(stream, LONGEST_LINE) for stream in streams]
        for lines in zip(*readers, strict=True):
            values = {}
            for (column, file), (number, line) in zip(files.items(), lines, strict=True):
                text = decoded(line, f"{file.name}:{number}", LONGEST_LINE, handle)
                if text is None:
                    break
                values[column] = text
            else:
                yield Row(values, f"{first.name}:{lines[0][0]}")


def _require_equal_counts(files: dict[str, SourceFile]) -> None:
    """Counted before any row is read: behind a line too many, no two lines belong together."""
    counts = {file.name: _count(file) for file in files.values()}
    if len(set(counts.values())) > 1:
        have = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise ValueError(f"aligned files must have equally many lines; {have}: mend the files")


def _count(file: SourceFile) -> int:
    try:
        with _open(file) as stream:
            return sum(1 for _ in numbered_lines(stream, LONGEST_LINE))
    except OSError as error:
        raise ValueError(_cut_off(file, error)) from error
