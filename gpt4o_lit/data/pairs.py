"""The data module of pairs: a text to read, and the text to say to it."""

from dataclasses import dataclass

import numpy as np
import torch

from gpt4o_lit.corpus import Examples, PairsConfig, prepare_pairs
from gpt4o_lit.corpus.buckets import Array
from gpt4o_lit.corpus.pairs import Pair, texts_of
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

# B pairs, S source pieces, T target pieces


@dataclass(frozen=True)
class CollatePairs(Collate):
    """`source` and `source_documents` (B, S) for an encoder, `tokens` and `targets` (B, T) for a
    decoder, and how many pieces there are but for padding: `source_len`, `target_len`.

    A decoder that reads source and target in one row has no `source`.
    """

    pad_id: int
    eos_id: int
    joined: bool
    """Source and target in one row, for a decoder alone."""

    def read(self, lengths: Array) -> Array:
        """The ends too."""
        return np.asarray(lengths + (np.array([0, 1]) if self.joined else 1))

    def __call__(self, rows: Rows) -> Batch:
        batch = self._joined(rows) if self.joined else self._apart(rows)
        ends = 0 if self.joined else len(rows)
        batch["source_len"] = sum(len(source) for source, _ in rows) + ends
        batch["target_len"] = sum(len(target) + 1 for _, target in rows)
        return batch

    def nothing_asked(self, batch: Batch) -> Batch:
        return batch | {"targets": torch.full_like(batch["targets"], IGNORED)}

    def _apart(self, rows: Rows) -> Batch:
        """The encoder reads the source and its end; the decoder pad, and then the target."""
        sources = [np.append(source, self.eos_id) for source, _ in rows]
        return {
            "source": padded(sources, self.pad_id),
            "source_documents": padded([np.zeros_like(source) for source in sources], PADDING),
            "tokens": padded([np.append(self.pad_id, target) for _, target in rows], self.pad_id),
            "targets": padded([np.append(target, self.eos_id) for _, target in rows], IGNORED),
        }

    def _joined(self, rows: Rows) -> Batch:
        """The decoder reads both and is asked for what comes behind the source."""
        tokens = [np.concatenate(row) for row in rows]
        targets = [
            np.concatenate([np.full(len(source) - 1, IGNORED), target, [self.eos_id]])
            for source, target in rows
        ]
        return {"tokens": padded(tokens, self.pad_id), "targets": padded(targets, IGNORED)}


class PairsDataModule(TablesDataModule):
    """Reads pairs of texts from tables and serves them in batches of like length.

    Args:
        pairs: Where they come from, and what of a row is source and target.
        tokenizer: The tokenizer to train on the training pairs, or to load.
        directory: Where tokenizer and tokens are kept; used again while nothing has changed.
        batch_tokens: Most pieces of a training batch per process, padding included.
        eval_batch_tokens: The same for validation and test. Default: twice batch_tokens.
        seed: Of the order in which training batches are drawn.
    """

    def __init__(
        self,
        pairs: PairsConfig,
        tokenizer: TokenizerRecipe,
        directory: str,
        batch_tokens: int = 4096,
        eval_batch_tokens: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(pairs, tokenizer, directory, batch_tokens, eval_batch_tokens, seed)
        self.pairs = pairs
        self.joined = False
        """Whether source and target stand in one row; the task knows."""

    def prepare(self) -> Examples:
        """The pairs, made anew where they have changed."""
        return prepare_pairs(self.pairs, self.tokenizer_recipe, self.directory, progress=True)

    @property
    def longest_row(self) -> int:
        """Most pieces that the network reads in a row."""
        longest = self.pairs.max_source_len, self.pairs.max_target_len
        return sum(longest) if self.joined else max(longest)

    def texts(self, split: str) -> list[Pair]:
        """Source and references of valid or test."""
        return texts_of(self.examples, split)

    def prompts(self, *, masked: bool, longest: int) -> list[str]:
        """The first validation sources that leave room for an answer."""
        texts = [pair.source for pair in self.texts("valid")[:100]]
        lengths = map(len, self.tokenizer.encode_batch(texts))
        return [text for text, n in zip(texts, lengths, strict=True) if n <= longest][:3]

    def _collate(self) -> CollatePairs:
        tokenizer = self.tokenizer
        return CollatePairs(tokenizer.pad_id, tokenizer.eos_id, self.joined)
