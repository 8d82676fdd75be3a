"""Make one text of a row's columns: `translate to English: {zh}`. Nothing in it is ever run."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

# Doubled braces, a name in braces, a brace alone, or the text between them.
TOKEN = re.compile(r"(\{\{|\}\})|\{([^{}]*)\}|([{}])|([^{}]+)")


@dataclass(frozen=True)
class Template:
    """A text with column names in braces; `{{` and `}}` are braces of the text itself.

    A name is all that stands between its braces: `{answers}`, `{the question}`, and with dots into
    nested objects `{translation.en}`. Raises ValueError for a brace without its partner and for
    `{}`.
    """

    text: str

    def __post_init__(self) -> None:
        assert self._parts is not None  # parsed on birth, so that mistakes show there

    @property
    def columns(self) -> list[str]:
        """The names in it, each once, in order."""
        return list(dict.fromkeys(part for part, is_name in self._parts if is_name))

    def render(self, values: Mapping[str, Any]) -> str:
        """The text for one row.

        A number is written as Python writes it; of a list of texts the first is taken. Raises
        ValueError for a column that is missing, and for a value that is no text.
        """
        return "".join(
            _as_text(part, value_of(values, part)) if is_name else part
            for part, is_name in self._parts
        )

    @cached_property
    def _parts(self) -> list[tuple[str, bool]]:
        """Texts and names in order, each with whether it is a name."""
        parts = []
        for match in TOKEN.finditer(self.text):
            doubled, name, brace, text = match.groups()
            where = f"template {self.text!r} has at character {match.start() + 1}"
            if brace:
                raise ValueError(f"{where} a single {brace}; write {brace * 2} for the sign itself")
            if name == "":
                raise ValueError(f"{where} a {{}} without a name; write a column between them")
            parts.append((name, True) if name else (doubled[0] if doubled else text, False))
        return parts


def value_of(values: Mapping[str, Any], name: str) -> Any:
    """The value of a column, or with dots in its name, of what is nested in one.

    Raises ValueError that names the columns there are, and the nearest.
    """
    here: Any = values
    rest = name
    while rest not in here:
        head, _, rest = rest.partition(".")
        if not rest or not isinstance(here.get(head), Mapping):
            raise ValueError(_missing(name, values))
        here = here[head]
    return here[rest]


def _missing(name: str, values: Mapping[str, Any]) -> str:
    names = list(values)
    for column, value in values.items():
        if isinstance(value, Mapping):
            names += [f"{column}.{inner}" for inner in value]
    have = ", ".join(map(repr, names)) or "none"
    close = difflib.get_close_matches(name, names, n=1)
    mend = f"did you mean {close[0]!r}?" if close else "choose one of them"
    return f"there is no column {name!r} (there are {have}); {mend}"


def _as_text(name: str, value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        value = value[0]
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping) and value:
        inner = ", ".join(f"{{{name}.{key}}}" for key in value)
        raise ValueError(f"column {name!r} holds an object; choose one of {inner}")
    kind = type(value).__name__
    if not value:
        kind = "null" if value is None else f"an empty {kind}"
    raise ValueError(
        f"column {name!r} is {kind}; a template takes text, a number or a list of texts: "
        "leave the row out, or choose another column"
    )
