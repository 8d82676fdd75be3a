"""Texts, or pairs of them, and the classes that they are of."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4o_lit.corpus.documents import Skips
from gpt4o_lit.corpus.examples import (
    Encoded,
    Example,
    ExampleBuilder,
    Examples,
    TablesConfig,
    TooLong,
)
from gpt4o_lit.corpus.rows import Row
from gpt4o_lit.corpus.template import Template, value_of
from gpt4o_lit.tokenizer import Tokenizer, TokenizerRecipe


@dataclass(frozen=True, kw_only=True)
class LabelledConfig(TablesConfig):
    """Where labelled texts come from, and what of a row is text and label."""

    text: str | list[str] = "{text}"
    """What is read: text with columns in braces; of a pair of sentences both, such as
    ["{premise}", "{hypothesis}"]."""
    label: str = "label"
    """The column of the class, or of several."""
    classes: list[str] | None = None
    """The names of all classes, in their order. Default: those in train, sorted."""
    multi_label: bool = False
    """A text may have any number of classes: a list, or names with a separator between them."""
    separator: str = ","
    """Between the names of several classes."""
    max_len: int = 256
    """Most pieces of a text, its ends included."""
    too_long: TooLong = "truncate"
    """What to do with longer texts: stop and name it, leave it out and count it, or cut its end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_len < 4:
            raise ValueError(f"max_len ({self.max_len}) must be at least 4; set it to 256")
        for template in self.templates:
            if not template.columns:
                raise ValueError(
                    f"the template {template.text!r} names no column; write one in braces: {{text}}"
                )
        if self.classes is not None and len(set(self.classes)) < max(2, len(self.classes)):
            raise ValueError(
                f"classes ({', '.join(self.classes)}) must be at least two names, each once"
            )

    @property
    def longest(self) -> int:
        return self.max_len

    @property
    def templates(self) -> list[Template]:
        """One, or two for pairs of sentences."""
        return [
            Template(text) for text in ([self.text] if isinstance(self.text, str) else self.text)
        ]


@dataclass(frozen=True)
class LabelledText:
    """A text, or two, and the names of its classes."""

    texts: list[str]
    labels: list[str]


def prepare_labelled(
    config: LabelledConfig,
    tokenizer: TokenizerRecipe,
    directory: Path | str,
    *,
    progress: bool = False,
) -> Examples:
    """The labelled texts in `directory`, made anew where they are missing or of something else;
    as `ExampleBuilder.prepare`. What is told of them: `classes`, and how often each is in train."""
    return _LabelledBuilder(config, progress).prepare(tokenizer, directory)


def labelled_texts(examples: Examples, split: str) -> list[LabelledText]:
    """Texts and labels of valid or test, in the order of the split."""
    return [LabelledText(line["source"], line["target"]) for line in examples.lines(split)]


def joined(
    rows: Sequence[Sequence[int]], tokenizer: Tokenizer, room: int | None = None
) -> list[int]:
    """The pieces of one text, or of two with eos between them; the longer is cut to the room."""
    parts = [list(row) for row in rows]
    if room is not None:
        room -= len(parts) - 1
        while sum(map(len, parts)) > room:
            longest = max(parts, key=len)
            del longest[max(len(longest) - (sum(map(len, parts)) - room), room // len(parts)) :]
    pieces = parts[0]
    for part in parts[1:]:
        pieces = [*pieces, tokenizer.eos_id, *part]
    return pieces


def texts_of_row(templates: Sequence[Template], values: Mapping[str, Any]) -> list[str]:
    """The rendered texts of a row.

    Raises:
        ValueError: a column is missing, or a text is empty.
    """
    texts = [template.render(values) for template in templates]
    if not all(text.strip() for text in texts):
        raise ValueError("its text is empty; fill it, or delete the row")
    return texts


class _LabelledBuilder(ExampleBuilder):
    what = "labelled texts"

    def __init__(self, config: LabelledConfig, progress: bool) -> None:
        super().__init__(config, progress)
        self.templates = config.templates
        self.classes: dict[str, int] | None = None

    def example(self, row: Row, split: str) -> Example:
        texts = texts_of_row(self.templates, row.values)
        labels = self._labels(value_of(row.values, self.config.label))
        if self.classes is not None:
            unknown = [label for label in labels if label not in self.classes]
            if unknown:
                raise ValueError(
                    f"its class {unknown[0]!r} is none of {', '.join(self.classes)}; mend it, or "
                    "name all classes in classes"
                )
        return Example(texts, labels, row.place)

    def look(self) -> dict[str, Any]:
        """The classes, and how often each is met in train."""
        found: Counter[str] = Counter()
        for example in self.examples("train", Skips(self.config.on_error)):
            found.update(example.target)
        names = self.config.classes or sorted(found, key=_in_order)
        if len(names) < 2:
            raise ValueError(
                f"column {self.config.label!r} has {len(names)} classes in train, but at least 2 "
                "are to be told apart; choose another column, or give more rows"
            )
        self.classes = {name: number for number, name in enumerate(names)}
        return {"classes": names, "counts": [found[name] for name in names]}

    def key(self, example: Example) -> str:
        return "\n".join(example.source)

    def texts(self, example: Example) -> list[str]:
        return list(example.source)

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[list[Encoded]]:
        assert self.classes is not None
        room = self.limits()[0] if self.config.too_long == "truncate" else None
        encoded = []
        for example in examples:
            pieces = joined(tokenizer.encode_batch(example.source), tokenizer, room)
            encoded.append([(pieces, [self.classes[label] for label in example.target])])
        return encoded

    def limits(self) -> tuple[int, int | None]:
        return self.config.max_len - 2, None

    def _labels(self, value: Any) -> list[str]:
        if not self.config.multi_label:
            if value is None or isinstance(value, list | dict) or not str(value).strip():
                raise ValueError(
                    f"column {self.config.label!r} is {value!r}, no name of a class; mend it, or "
                    "set multi_label"
                )
            return [str(value).strip()]
        names = value if isinstance(value, list) else str(value or "").split(self.config.separator)
        return list(dict.fromkeys(name for each in names if (name := str(each).strip())))


def _in_order(name: str) -> tuple[int, float, str]:
    """Numbers by their value, before all other names."""
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name
