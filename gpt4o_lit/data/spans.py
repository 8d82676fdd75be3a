"""The data module of questions whose answers stand in a text."""

from dataclasses import dataclass

import numpy as np
import torch

from gpt4o_lit.corpus import Examples, SpansConfig, prepare_spans
from gpt4o_lit.corpus.buckets import Array
from gpt4o_lit.corpus.spans import Question, Window, questions_of, windows_of
from gpt4o_lit.data.loader import Batch
from gpt4o_lit.data.tables import (
    IGNORED,
    PADDING,
    Collate,
    Rows,
    TablesDataModule,
    padded,
)
from gpt4o_lit.tokenizer import TokenizerRecipe

# B windows, T pieces


@dataclass(frozen=True)
class CollateSpans(Collate):
    """`tokens`, `documents` (B, T): bos, question, eos, a part of the text, eos. `answers` (B, T)
    bool: where an answer may begin and end, and bos, which stands for none. `targets` (B, 2).
    `source_len`: pieces but for padding."""

    pad_id: int
    bos_id: int
    eos_id: int

    def read(self, lengths: Array) -> Array:
        """The ends too; targets are not read."""
        return np.stack([lengths[:, 0] + 2, np.zeros_like(lengths[:, 1])], axis=1)

    def __call__(self, rows: Rows) -> Batch:
        tokens = [np.concatenate([[self.bos_id], text, [self.eos_id]]) for text, _ in rows]
        answers = []
        for text, target in rows:
            places = np.arange(len(text) + 2)
            may = (places >= int(target[0])) & (places <= len(text))
            may[0] = True
            answers.append(may.astype(np.int64))
        return {
            "tokens": padded(tokens, self.pad_id),
            "documents": padded([np.zeros_like(text) for text in tokens], PADDING),
            "answers": padded(answers, 0).bool(),
            "targets": torch.tensor([target[1:].tolist() for _, target in rows]),
            "source_len": sum(map(len, tokens)),
        }

    def nothing_asked(self, batch: Batch) -> Batch:
        return batch | {"targets": torch.full_like(batch["targets"], IGNORED)}


class SpansDataModule(TablesDataModule):
    """Reads questions and texts from tables, or SQuAD's JSON, and serves windows of like length.

    Args:
        spans: Where they come from, and how long windows are.
        tokenizer: The tokenizer to train on the training text, or to load.
        directory: Where tokenizer and tokens are kept; used again while nothing has changed.
        batch_tokens: Most pieces of a training batch per process, padding included.
        eval_batch_tokens: The same for validation and test. Default: twice batch_tokens.
        seed: Of the order in which training batches are drawn.
    """

    def __init__(
        self,
        spans: SpansConfig,
        tokenizer: TokenizerRecipe,
        directory: str,
        batch_tokens: int = 4096,
        eval_batch_tokens: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(spans, tokenizer, directory, batch_tokens, eval_batch_tokens, seed)
        self.spans = spans

    def prepare(self) -> Examples:
        """The questions, made anew where they have changed."""
        return prepare_spans(self.spans, self.tokenizer_recipe, self.directory, progress=True)

    @property
    def longest_row(self) -> int:
        """Most pieces that the network reads in a row."""
        return self.spans.max_len

    @property
    def unanswered(self) -> bool:
        """Whether some questions of train have no answer in their text."""
        return self.examples.told["unanswered"] > 0

    def questions(self, split: str) -> list[Question]:
        """The questions of valid or test."""
        return questions_of(self.examples, split)

    def windows(self, question: str, context: str) -> list[Window]:
        """Those in which a text is read for a question."""
        limits = {"max_len": self.spans.max_len, "stride": self.spans.stride}
        return windows_of(question, context, self.tokenizer, **limits)

    def prompts(self, *, masked: bool, longest: int) -> list[str]:
        """Questions of the validation split."""
        return [question.question for question in self.questions("valid")[:3]]

    def collate(self, windows: list[Window]) -> Batch:
        """A batch of windows of which no answer is known."""
        rows = [(np.array(w.pieces), np.array([1 + w.first, 0, 0])) for w in windows]
        return self._collate()(rows)

    def _collate(self) -> CollateSpans:
        tokenizer = self.tokenizer
        return CollateSpans(tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id)
