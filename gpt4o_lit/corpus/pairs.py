"""Pairs of texts: what is read, and what is said to it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4o_lit.corpus.examples import Encoded, Example, ExampleBuilder, Examples, TablesConfig
from gpt4o_lit.corpus.rows import Row
from gpt4o_lit.corpus.template import Template, value_of
from gpt4o_lit.tokenizer import Tokenizer, TokenizerRecipe


@dataclass(frozen=True, kw_only=True)
class PairsConfig(TablesConfig):
    """Where pairs come from, what is source and target, and how long they may be."""

    source: str = "{source}"
    """What is read: text with columns in braces, such as "translate Chinese to English: {zh}"."""
    target: str = "{target}"
    """What is said."""
    references: list[str] | None = None
    """All that counts as right where outputs are scored; of a column that holds a list, each.
    Those whose columns a row lacks are left out. Default: target."""
    collapse_blanks: bool = False
    """Whether several blanks, tabs and line ends in a row are read and said as one blank, and those
    at the ends of a text not at all."""
    max_source_len: int = 256
    """Most pieces of a source, its end included."""
    max_target_len: int = 256
    """Most pieces of a target, its end included."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_source_len", "max_target_len"):
            if getattr(self, name) < 2:
                raise ValueError(
                    f"{name} ({getattr(self, name)}) must be at least 2: a piece and the end"
                )
        for template in (self.source, self.target, *(self.references or [])):
            if not Template(template).columns:
                raise ValueError(
                    f"the template {template!r} names no column; write one in braces: {{zh}}"
                )

    @property
    def longest(self) -> int:
        return self.max_source_len + self.max_target_len


@dataclass(frozen=True)
class Pair:
    """A source, and what counts as an answer to it; the first is the target."""

    source: str
    references: list[str]


def collapsed(text: str) -> str:
    """A text with one blank where it has several, tabs or line ends, and none at its ends."""
    return " ".join(text.split())


def prepare_pairs(
    config: PairsConfig,
    tokenizer: TokenizerRecipe,
    directory: Path | str,
    *,
    progress: bool = False,
) -> Examples:
    """The pairs in `directory`, made anew where they are missing or of something else; as
    `ExampleBuilder.prepare`."""
    return _PairsBuilder(config, progress).prepare(tokenizer, directory)


def texts_of(pairs: Examples, split: str) -> list[Pair]:
    """Sources and references of valid or test, in the order of the split."""
    return [Pair(line["source"], line["target"]) for line in pairs.lines(split)]


class _PairsBuilder(ExampleBuilder):
    what = "pairs"

    def __init__(self, config: PairsConfig, progress: bool) -> None:
        super().__init__(config, progress)
        self.source, self.target = Template(config.source), Template(config.target)
        references = [config.target] if config.references is None else config.references
        self.references = [Template(text) for text in references]

    def example(self, row: Row, split: str) -> Example:
        """The rendered templates; the target in train, else all that is right."""
        clean = collapsed if self.config.collapse_blanks else str
        source = clean(self.source.render(row.values))
        if split == "train":
            references = [self.target.render(row.values)]
        else:
            there = [each for each in self.references if _fits(each, row.values)]
            found = [_renderings(each, row.values) for each in there or self.references]
            references = [text for texts in found for text in texts]
        references = [clean(text) for text in references if text.strip()]
        for side, empty in (("source", not source.strip()), ("target", not references)):
            if empty:
                raise ValueError(f"its {side} is empty; fill it, or delete the row")
        return Example(source, references, row.place)

    def key(self, example: Example) -> str:
        return str(example.source)

    def texts(self, example: Example) -> list[str]:
        return [example.source, example.target[0]]

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[list[Encoded]]:
        sources = tokenizer.encode_batch([example.source for example in examples])
        targets = tokenizer.encode_batch([example.target[0] for example in examples])
        return [[pair] for pair in zip(sources, targets, strict=True)]

    def limits(self) -> tuple[int, int | None]:
        return self.config.max_source_len - 1, self.config.max_target_len - 1


def _renderings(template: Template, values: Mapping[str, Any]) -> Iterator[str]:
    """The text of a row; where a column holds a list, one for each of its items."""
    for name in template.columns:
        items = value_of(values, name)
        if isinstance(items, list):
            for item in items:
                yield from _renderings(template, {**values, name: item})
            return
    yield template.render(values)


def _fits(template: Template, values: Mapping[str, Any]) -> bool:
    """Whether a row has all columns that a template names."""
    try:
        return all(value_of(values, name) is not None for name in template.columns)
    except ValueError:
        return False
