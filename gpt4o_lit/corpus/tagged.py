"""Sentences whose words have tags: names of people and places, parts of speech."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

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
from gpt4o_lit.corpus.template import value_of
from gpt4o_lit.tokenizer import Tokenizer, TokenizerRecipe


@dataclass(frozen=True, kw_only=True)
class TaggedConfig(TablesConfig):
    """Where sentences come from, and which columns hold their words and tags."""

    tokens: str = "tokens"
    """The column of the words: a list, or a text with blanks between them. Of a .conll file it is
    `tokens`."""
    tags: str = "tags"
    """The column of their tags, of the same form and length. Of a .conll file it is `tags`."""
    classes: list[str] | None = None
    """The names of all tags, in their order. Default: those in train, sorted."""
    max_len: int = 256
    """Most pieces of a sentence, its ends included."""
    too_long: TooLong = "truncate"
    """What to do with longer ones: stop and name it, leave it out and count it, or leave out its
    last words."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_len < 4:
            raise ValueError(f"max_len ({self.max_len}) must be at least 4; set it to 256")

    @property
    def longest(self) -> int:
        return self.max_len


def prepare_tagged(
    config: TaggedConfig,
    tokenizer: TokenizerRecipe,
    directory: Path | str,
    *,
    progress: bool = False,
) -> Examples:
    """The sentences in `directory`, made anew where they are missing or of something else; as
    `ExampleBuilder.prepare`. A target has a number for each piece: 0, or at the first piece of a
    word 1 and its class. What is told of them: `classes`, and how often each is in train."""
    return _TaggedBuilder(config, progress).prepare(tokenizer, directory)


def pieces_of(words: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """The pieces of each word; of one that the tokenizer leaves nothing of, the unknown piece.

    Raises:
        ValueError: it leaves nothing of a word, and has no such piece.
    """
    rows = tokenizer.encode_batch(words)
    if all(rows):
        return rows
    if tokenizer.unk_id is None:
        word = next(word for word, row in zip(words, rows, strict=True) if not row)
        raise ValueError(f"the tokenizer leaves nothing of the word {word!r}; mend the row")
    return [row or [tokenizer.unk_id] for row in rows]


def words_of(values: Mapping[str, Any], column: str) -> list[str]:
    """The words, or tags, of a row.

    Raises:
        ValueError: the column is missing, or holds neither a list nor a text.
    """
    value = value_of(values, column)
    if isinstance(value, str):
        return value.split()
    if not isinstance(value, list):
        raise ValueError(f"column {column!r} is {value!r}, no list of words; mend it")
    return [str(each) for each in value]


class _TaggedBuilder(ExampleBuilder):
    what = "tagged sentences"

    def __init__(self, config: TaggedConfig, progress: bool) -> None:
        super().__init__(config, progress)
        self.classes: dict[str, int] | None = None

    def example(self, row: Row, split: str) -> Example:
        words = words_of(row.values, self.config.tokens)
        tags = words_of(row.values, self.config.tags)
        if not words or not all(word.strip() for word in words):
            raise ValueError("it has no words, or an empty one; delete the row")
        if len(words) != len(tags):
            raise ValueError(f"it has {len(words)} words and {len(tags)} tags; mend the row")
        unknown = [] if self.classes is None else [tag for tag in tags if tag not in self.classes]
        if unknown:
            raise ValueError(
                f"its tag {unknown[0]!r} is none of {', '.join(self.classes or ())}; mend it, or "
                "name all tags in classes"
            )
        return Example(words, tags, row.place)

    def look(self) -> dict[str, Any]:
        """The tags, and how often each is met in train."""
        found: Counter[str] = Counter()
        for example in self.examples("train", Skips(self.config.on_error)):
            found.update(example.target)
        names = self.config.classes or sorted(found)
        if len(names) < 2:
            raise ValueError(
                f"column {self.config.tags!r} has {len(names)} tags in train, but at least 2 "
                "are to be told apart; choose another column, or give more rows"
            )
        self.classes = {name: number for number, name in enumerate(names)}
        return {"classes": names, "counts": [found[name] for name in names]}

    def key(self, example: Example) -> str:
        return " ".join(example.source)

    def texts(self, example: Example) -> list[str]:
        return [" ".join(example.source)]

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[list[Encoded]]:
        return [[self._encode(example, tokenizer)] for example in examples]

    def limits(self) -> tuple[int, int | None]:
        return self.config.max_len - 2, None

    def _encode(self, example: Example, tokenizer: Tokenizer) -> Encoded:
        assert self.classes is not None
        pieces: list[int] = []
        classes: list[int] = []
        most = self.limits()[0]
        for word, tag in zip(pieces_of(example.source, tokenizer), example.target, strict=True):
            if self.config.too_long == "truncate" and len(pieces) + len(word) > most:
                break
            pieces += word
            classes += [1 + self.classes[tag], *[0] * (len(word) - 1)]
        return pieces, classes


def targets_of(classes: np.ndarray, ignored: int) -> np.ndarray:
    """The class at each piece that is asked, int64; elsewhere what stands for no target."""
    signed = classes.astype(np.int64)
    return np.where(signed > 0, signed - 1, ignored)
