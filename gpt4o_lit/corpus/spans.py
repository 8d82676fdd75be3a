"""Questions whose answers stand in a text, in windows of it that overlap."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4o_lit.corpus.documents import Skips
from gpt4o_lit.corpus.examples import Encoded, Example, ExampleBuilder, Examples, TablesConfig
from gpt4o_lit.corpus.rows import Row
from gpt4o_lit.corpus.template import value_of
from gpt4o_lit.tokenizer import Tokenizer, TokenizerRecipe

# An answer begins and ends with a word: letters and digits in a row, a sign of Chinese, or a mark.
WORD = re.compile(r"[\u3005-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_\u3005-\u30ff\u3400-\u9fff]+|\S")


@dataclass(frozen=True, kw_only=True)
class SpansConfig(TablesConfig):
    """Where questions come from: rows, or SQuAD's own JSON."""

    question: str = "question"
    """The column of the question."""
    context: str = "context"
    """The column of the text that the answer stands in."""
    answers: str = "answers"
    """The column of the answers: texts, or as SQuAD has them `text` and `answer_start`. None: it is
    not answered there."""
    max_len: int = 384
    """Most pieces of a question and a window of its text, their ends included."""
    stride: int = 128
    """Pieces that a window shares with the next."""
    closest: float | None = None
    """Where an answer does not stand in the text word for word: the least F1 of the words it shares
    with the stretch most like it, which is learned in its stead. Default: such a row is unfit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_len < 16:
            raise ValueError(f"max_len ({self.max_len}) must be at least 16; set it to 384")
        if not 0 <= self.stride < self.max_len // 2:
            raise ValueError(
                f"stride ({self.stride}) must be at least 0 and below half of max_len "
                f"({self.max_len}); set it to {self.max_len // 3}"
            )
        if self.closest is not None and not 0 < self.closest <= 1:
            raise ValueError(f"closest ({self.closest}) must be above 0, at most 1; set it to 0.5")

    @property
    def longest(self) -> int:
        return self.max_len


@dataclass(frozen=True)
class Question:
    """A question, its text, what counts as an answer, and in how many windows it is read."""

    question: str
    context: str
    answers: list[str]
    parts: int


@dataclass(frozen=True)
class Window:
    """A question and a part of its text, as the network reads them between bos and eos."""

    pieces: list[int]
    first: int
    """Where the text begins among the pieces."""
    words: list[tuple[int, int]]
    """For each piece from there on, where its word begins and ends in the whole text."""

    def target(self, start: int, end: int) -> tuple[int, int]:
        """Where an answer begins and ends in the row that the network reads, bos being 0; that of
        bos where it is not in the window."""
        if end <= start:
            return 0, 0
        inside = [n for n, (a, b) in enumerate(self.words) if a < end and b > start]
        covered = inside and self.words[inside[0]][0] <= start and self.words[inside[-1]][1] >= end
        if not covered:
            return 0, 0
        return 1 + self.first + inside[0], 1 + self.first + inside[-1]

    def answer(self, context: str, start: int, end: int) -> str:
        """What stands at places of the row, in the text's own characters."""
        words = self.words[start - 1 - self.first : end - self.first]
        return context[words[0][0] : words[-1][1]]


def windows_of(
    question: str, context: str, tokenizer: Tokenizer, *, max_len: int, stride: int
) -> list[Window]:
    """The windows in which a text is read for a question, the first from its beginning."""
    asked = [*tokenizer.encode(question)[: max_len // 2 - 3], tokenizer.eos_id]
    bounds = [found.span() for found in WORD.finditer(context)]
    starts = [0, *(end for _, end in bounds)][: len(bounds)]
    # Each word with the blanks before it, as it is cut where the text is encoded whole.
    parts = [context[start:end] for start, (_, end) in zip(starts, bounds, strict=True)]
    befores = [context[start - 1] if start else "" for start in starts]
    flat, lengths = tokenizer.encode_flat(parts, befores)
    words = [span for span, n in zip(bounds, lengths.tolist(), strict=True) for _ in range(n)]
    pieces, room = flat.tolist(), max_len - 2 - len(asked)
    windows, start = [], 0
    while True:
        part = slice(start, start + room)
        windows.append(Window([*asked, *pieces[part]], len(asked), words[part]))
        if start + room >= len(pieces):
            return windows
        start += max(1, room - stride)


def prepare_spans(
    config: SpansConfig,
    tokenizer: TokenizerRecipe,
    directory: Path | str,
    *,
    progress: bool = False,
) -> Examples:
    """The questions in `directory`, made anew where they are missing or of something else; as
    `ExampleBuilder.prepare`. A source is a window; a target is where its text begins in the row
    that is read, and where the answer begins and ends there."""
    return _SpansBuilder(config, progress).prepare(tokenizer, directory)


def questions_of(examples: Examples, split: str) -> list[Question]:
    """The questions of valid or test, in the order of the split."""
    return [
        Question(
            **line["source"], answers=[text for text, _ in line["target"]], parts=line["parts"]
        )
        for line in examples.lines(split)
    ]


class _SpansBuilder(ExampleBuilder):
    what = "questions"

    def example(self, row: Row, split: str) -> Example:
        values = row.values
        question, context = (
            str(value_of(values, getattr(self.config, name))) for name in ("question", "context")
        )
        for name, text in (("question", question), ("context", context)):
            if not text.strip():
                raise ValueError(f"its {name} is empty; fill it, or delete the row")
        answers = _answers(value_of(values, self.config.answers))
        if self.config.closest is None:
            for text, start in answers:
                if _place(context, text, start) is None:
                    raise ValueError(
                        f"its answer {text[:40]!r} does not stand in its text; mend it, or set "
                        "closest to learn what is most like it"
                    )
        elif split == "train" and answers:
            place = self._place(context, answers)
            if place is None:
                raise ValueError(
                    f"nothing in its text is like its answer {answers[0][0][:40]!r}; lower "
                    "closest, or delete the row"
                )
            answers = [(context[slice(*place)], place[0])]
        source = {"question": question, "context": context}
        return Example(source, answers, row.place)

    def look(self) -> dict[str, Any]:
        """How many questions of train have no answer."""
        examples = self.examples("train", Skips(self.config.on_error))
        return {"unanswered": sum(not example.target for example in examples)}

    def key(self, example: Example) -> str:
        return str(example.source["context"])  # all questions on a text go to the same split

    def texts(self, example: Example) -> list[str]:
        return [example.source["question"], example.source["context"]]

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[list[Encoded]]:
        return [self._windows(example, tokenizer) for example in examples]

    def limits(self) -> tuple[int, int | None]:
        return self.config.max_len - 2, None

    def _windows(self, example: Example, tokenizer: Tokenizer) -> list[Encoded]:
        windows = windows_of(
            **example.source,
            tokenizer=tokenizer,
            max_len=self.config.max_len,
            stride=self.config.stride,
        )
        place = self._place(example.source["context"], example.target) or (0, 0)
        return [(window.pieces, [1 + window.first, *window.target(*place)]) for window in windows]

    def _place(
        self, context: str, answers: Sequence[tuple[str, int | None]]
    ) -> tuple[int, int] | None:
        """Where the first answer stands that does, or else what is most like one of them."""
        for text, start in answers:
            if place := _place(context, text, start):
                return place
        if self.config.closest is None:
            return None
        found = [closest_place(context, text) for text, _ in answers]
        score, place = max(found, default=(0.0, (0, 0)))
        return place if score >= self.config.closest else None


def closest_place(context: str, text: str) -> tuple[float, tuple[int, int]]:
    """The stretch of a text whose words are most like those of another, and their F1; of several
    the first and shortest."""
    asked = Counter(word for word, _ in _words(text))
    words, total = _words(context), asked.total()
    best, place = 0.0, (0, 0)
    for first, (word, (start, _)) in enumerate(words):
        if word not in asked:
            continue
        left, same = asked.copy(), 0
        for length, (other, (_, end)) in enumerate(words[first : first + 2 * total], 1):
            if left[other] > 0:
                left[other] -= 1
                same += 1
                score = 2 * same / (length + total)
                if score > best:
                    best, place = score, (start, end)
    return best, place


def _words(text: str) -> list[tuple[str, tuple[int, int]]]:
    """The words of a text in small letters, without marks, and where they stand."""
    found = ((match.group().lower(), match.span()) for match in WORD.finditer(text))
    return [(word, span) for word, span in found if word.isalnum()]


def _answers(value: Any) -> list[tuple[str, int | None]]:
    """The answers of a row in any form; each text once."""
    if value is None:
        return []
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Mapping):
        starts = value.get("answer_start") or [None] * len(value["text"])
        value = [{"text": t, "answer_start": s} for t, s in zip(value["text"], starts, strict=True)]
    found: dict[str, int | None] = {}
    for each in value:
        text, start = (
            (each, None) if isinstance(each, str) else (each["text"], each.get("answer_start"))
        )
        if str(text).strip():
            found.setdefault(str(text), start)
    return list(found.items())


def _place(context: str, text: str, start: int | None) -> tuple[int, int] | None:
    """Where an answer stands; where its place is wrong or not told, the first like it."""
    if start is None or context[start : start + len(text)] != text:
        start = context.find(text)
    return None if start < 0 else (start, start + len(text))
