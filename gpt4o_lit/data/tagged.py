"""The data module of tagged sentences."""

from dataclasses import dataclass

import numpy as np
import torch

from gpt4o_lit.corpus import Examples, TaggedConfig, prepare_tagged
from gpt4o_lit.corpus.buckets import Array
from gpt4o_lit.corpus.tagged import targets_of
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

# B sentences, T pieces


@dataclass(frozen=True)
class CollateTagged(Collate):
    """`tokens`, `documents` and `targets` (B, T): bos, the sentence, eos; the tag of each word is
    asked at its first piece. `source_len` and `target_len`: pieces but for padding, and words."""

    pad_id: int
    bos_id: int
    eos_id: int

    def read(self, lengths: Array) -> Array:
        """The ends too; tags are not read."""
        return np.stack([lengths[:, 0] + 2, np.zeros_like(lengths[:, 1])], axis=1)

    def __call__(self, rows: Rows) -> Batch:
        tokens = [np.concatenate([[self.bos_id], text, [self.eos_id]]) for text, _ in rows]
        targets = [
            np.concatenate([[IGNORED], targets_of(classes, IGNORED), [IGNORED]])
            for _, classes in rows
        ]
        return {
            "tokens": padded(tokens, self.pad_id),
            "documents": padded([np.zeros_like(text) for text in tokens], PADDING),
            "targets": padded(targets, IGNORED),
            "source_len": sum(map(len, tokens)),
            "target_len": int(sum((target != IGNORED).sum() for target in targets)),
        }

    def nothing_asked(self, batch: Batch) -> Batch:
        return batch | {"targets": torch.full_like(batch["targets"], IGNORED)}


class TaggedDataModule(TablesDataModule):
    """Reads sentences with tagged words from tables and serves them in batches of like length.

    Args:
        tagged: Where they come from, and which columns hold words and tags.
        tokenizer: The tokenizer to train on the training text, or to load.
        directory: Where tokenizer and tokens are kept; used again while nothing has changed.
        batch_tokens: Most pieces of a training batch per process, padding included.
        eval_batch_tokens: The same for validation and test. Default: twice batch_tokens.
        seed: Of the order in which training batches are drawn.
    """

    def __init__(
        self,
        tagged: TaggedConfig,
        tokenizer: TokenizerRecipe,
        directory: str,
        batch_tokens: int = 4096,
        eval_batch_tokens: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(tagged, tokenizer, directory, batch_tokens, eval_batch_tokens, seed)
        self.tagged = tagged

    def prepare(self) -> Examples:
        """The sentences, made anew where they have changed."""
        return prepare_tagged(self.tagged, self.tokenizer_recipe, self.directory, progress=True)

    @property
    def classes(self) -> list[str]:
        """The names of the tags, by number."""
        return list(self.examples.told["classes"])

    @property
    def longest_row(self) -> int:
        """Most pieces that the network reads in a row."""
        return self.tagged.max_len

    def prompts(self, *, masked: bool, longest: int) -> list[str]:
        """Sentences of the validation split."""
        return [" ".join(line["source"]) for line in self.examples.lines("valid")[:3]]

    def _collate(self) -> CollateTagged:
        tokenizer = self.tokenizer
        return CollateTagged(tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id)
