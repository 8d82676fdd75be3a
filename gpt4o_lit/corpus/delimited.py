"""Rows of CSV and TSV files, each with its line; a broken row costs itself and no other."""

import csv
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from gpt4o_lit.corpus.streams import Stream, numbered_lines

# A quote that nobody closes would gather the rest of the file in one field, four bytes a sign.
LONGEST_FIELD = 16 << 20


def csv_rows(
    stream: Stream, name: str, longest_line: int, handle: Callable[[str, str], None]
) -> Iterator[tuple[int, list[str]]]:
    """Line and fields of each row that is not empty; what is broken goes to `handle`."""
    csv.field_size_limit(LONGEST_FIELD)
    lines = _Lines(stream, name, longest_line)
    reader = csv.reader(lines, strict=True)
    while True:
        lines.start_row()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            mend = "mend its quotes, or break the text up"
            handle("broken CSV", f"{lines.where()} is broken CSV ({error}); {mend}")
            lines.go_back()
            continue
        if lines.fault:
            handle(*lines.fault)
        elif row:
            yield lines.first, row


def tab_rows(
    stream: Stream, name: str, longest_line: int, handle: Callable[[str, str], None]
) -> Iterator[tuple[int, list[str]]]:
    """Line and fields of each line that is not empty; a quote is a sign like any other."""
    for number, line in numbered_lines(stream, longest_line):
        if text := decoded(line, f"{name}:{number}", longest_line, handle):
            yield number, text.split("\t")


def decoded(
    line: bytes | None, where: str, longest_line: int, handle: Callable[[str, str], None]
) -> str | None:
    """The text of a line without its end; None if `handle` was told why there is none."""
    if line is None:
        said = f"{where} is longer than {longest_line >> 20} MB; break the line up"
        handle("line too long", said)
        return None
    try:
        return line.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        byte = f"0x{line[error.start]:02x}"
        handle("not UTF-8", f"{where} holds the byte {byte}, which is not UTF-8; convert the file")
        return None


class _Line(NamedTuple):
    number: int
    text: str
    fault: tuple[str, str] | None


class _Lines:
    """Decoded lines for `csv.reader`, which takes exactly those of one row at a time."""

    def __init__(self, stream: Stream, name: str, longest: int) -> None:
        self._numbered = numbered_lines(stream, longest)
        self._name, self._limit = name, longest
        self._again: deque[_Line] = deque()
        self._row: list[_Line] = []
        self._size = 0

    def start_row(self) -> None:
        """Forget the lines of the row before."""
        self._row, self._size = [], 0

    def go_back(self) -> None:
        """Give all lines of this row but its first once more: its quote may have swallowed them."""
        self._again.extendleft(reversed(self._row[1:]))

    @property
    def fault(self) -> tuple[str, str] | None:
        """Kind and message of the first line of this row that could not be read."""
        return next((line.fault for line in self._row if line.fault), None)

    @property
    def first(self) -> int:
        """Number of the line on which this row starts."""
        return self._row[0].number

    def where(self) -> str:
        """File and line, or lines, of this row."""
        first, last = self.first, self._row[-1].number
        return f"{self._name}:{first}" + (f"-{last}" if last > first else "")

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._read()
        self._row.append(line)
        self._size += len(line.text)
        if self._size > self._limit:
            raise csv.Error(f"it is longer than {self._limit >> 20} MB")
        return line.text

    def _read(self) -> _Line:
        number, line = next(self._numbered)
        where = f"{self._name}:{number}"
        if line is None:
            said = f"{where} is longer than {self._limit >> 20} MB; break the line up"
            return _Line(number, "\n", ("line too long", said))
        try:
            return _Line(number, line.decode(), None)
        except UnicodeDecodeError as error:
            byte = f"0x{line[error.start]:02x}"
            said = f"{where} holds the byte {byte}, which is not UTF-8; convert the file"
            return _Line(number, line.decode(errors="replace"), ("not UTF-8", said))
