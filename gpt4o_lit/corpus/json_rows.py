"""Objects of a .jsonl or .json file, each with its number; a broken one costs itself alone."""

import ast
import json
import warnings
from collections.abc import Iterator
from typing import Any

from gpt4o_lit.corpus.formats import Handle, json_objects
from gpt4o_lit.corpus.streams import BUFFER, Stream

Numbered = Iterator[tuple[int, dict[str, Any]]]
# An array is parsed as a whole.
LARGEST_ARRAY = 1 << 30
# The parser of Python literals takes a hundred times its text.
LONGEST_LITERAL = 1 << 20


def json_lines(stream: Stream, name: str, handle: Handle, note: Handle | None) -> Numbered:
    """Line and object of each line that is not blank; what is broken goes to `handle`.

    A line may hold a Python literal, as some published sets do; `note` is told so once.
    """
    tell = note

    def parse(text: str) -> Any:
        nonlocal tell
        try:
            row = json.loads(text)
        except ValueError:
            row = _literal(text)
            if row is None:
                raise
            if tell:
                said = f"{name} holds Python literals, not JSON; they are read as they are"
                tell("Python literals", said)
                tell = None
        _require_unicode(row)
        return row

    return json_objects(stream, name, handle, parse)


def _literal(text: str) -> dict[str, Any] | None:
    """The object that a line writes as Python does, in single quotes; None if it is none."""
    if len(text) > LONGEST_LITERAL or not text.startswith("{"):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes such as "\d", which Python reads as they are
        try:
            row = ast.literal_eval(text)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None
    return row if isinstance(row, dict) and all(isinstance(key, str) for key in row) else None


def _require_unicode(value: Any) -> None:
    """Raise UnicodeEncodeError where a text holds half a surrogate pair."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict):
        _require_unicode([*value, *value.values()])
    elif isinstance(value, list | tuple):
        for each in value:
            _require_unicode(each)


def json_array(stream: Stream, name: str, size: int, handle: Handle) -> Numbered:
    """The objects of the array that is the file, numbered from 1; the others go to `handle`.

    `size` are its bytes on disk. Raises ValueError for an array that is too large.
    """
    for number, row in enumerate(_array(_whole(stream, name, size), name, handle), 1):
        where = f"{name}:{number}"
        try:
            _require_unicode(row)
        except UnicodeEncodeError:
            handle("not UTF-8", f"{where} holds half a surrogate pair; mend the text")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            handle("broken JSON", f"{where} is no JSON object; write an array of objects")


def _array(data: bytes, name: str, handle: Handle) -> list[Any]:
    try:
        rows = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        # Of error.object, since the mark at the start of data is not in it.
        where = f"{name}:{error.object.count(10, 0, error.start) + 1}"
        handle("not UTF-8", f"{where} is not UTF-8 ({error.reason}); convert the file")
        return []
    except (ValueError, RecursionError) as error:
        where = f"{name}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else name
        mend = "mend it, or where each line is an object, rename the file to .jsonl"
        handle("broken JSON", f"{where} is broken JSON ({error}); {mend}")
        return []
    if isinstance(rows, dict) and isinstance(rows.get("data"), list):
        return list(_squad(rows["data"]))
    if isinstance(rows, list):
        return rows
    handle("broken JSON", f"{name} holds no array but {type(rows).__name__}; write an array")
    return []


def _squad(articles: list[Any]) -> Iterator[Any]:
    """The questions in SQuAD's own JSON, each with its text; other lists in `data` as they are."""
    for article in articles:
        if not isinstance(article, dict) or "paragraphs" not in article:
            yield article
            continue
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                yield {**question, "context": paragraph["context"]}


def _whole(stream: Stream, name: str, size: int) -> bytes:
    """All bytes of the file, unless they are too many, packed or not."""
    data = bytearray()
    while max(size, len(data)) <= LARGEST_ARRAY:
        block = stream.read(BUFFER)
        if not block:
            return bytes(data)
        data += block
    raise ValueError(
        f"{name} is an array of more than {LARGEST_ARRAY >> 20} MB, which is read as a whole; "
        "write it as .jsonl or .parquet"
    )
