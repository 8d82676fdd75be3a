"""The data module of conversations."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from gpt4o_lit.corpus import ConversationsConfig, Examples, prepare_conversations
from gpt4o_lit.corpus.buckets import Array
from gpt4o_lit.corpus.conversations import conversation_of
from gpt4o_lit.corpus.packs import Packs
from gpt4o_lit.data.loader import Batch, order_in
from gpt4o_lit.data.tables import (
    IGNORED,
    PADDING,
    BucketLoader,
    Collate,
    Rows,
    TablesDataModule,
    padded,
)
from gpt4o_lit.tokenizer import TokenizerRecipe

# B conversations, T pieces


@dataclass(frozen=True)
class CollateConversations(Collate):
    """`tokens` and `targets` (B, T): each piece that an assistant says is asked where the one
    before it stands; and how many `conversations` and pieces but for padding there are:
    `source_len`, `target_len`. Where rows hold several, `documents` (B, T) tells them apart."""

    pad_id: int

    def read(self, lengths: Array) -> Array:
        """The last piece is asked and not read; which are asked is not read."""
        return np.stack([lengths[:, 0] - 1, np.zeros_like(lengths[:, 1])], axis=1)

    def __call__(self, rows: Rows) -> Batch:
        tokens, targets = self._shifted(rows)
        return {
            "tokens": padded(tokens, self.pad_id),
            "targets": padded(targets, IGNORED),
            "conversations": len(rows),
            "source_len": sum(map(len, tokens)),
            "target_len": int(sum((target != IGNORED).sum() for target in targets)),
        }

    def packed(self, packs: Sequence[Rows]) -> Batch:
        """The same of rows that hold several conversations each."""
        batch = self([row for pack in packs for row in pack])
        tokens, targets, documents = [], [], []
        for pack in packs:
            parts, asked = self._shifted(pack)
            tokens.append(np.concatenate(parts))
            targets.append(np.concatenate(asked))
            documents.append(np.repeat(np.arange(len(parts)), list(map(len, parts))))
        return batch | {
            "tokens": padded(tokens, self.pad_id),
            "targets": padded(targets, IGNORED),
            "documents": padded(documents, PADDING),
        }

    def _shifted(self, rows: Rows) -> tuple[list[Array], list[Array]]:
        """What is read of each conversation, and what is asked."""
        asked = [np.where(said[1:] > 0, pieces[1:], IGNORED) for pieces, said in rows_of(rows)]
        return [pieces[:-1] for pieces, _ in rows], asked

    def nothing_asked(self, batch: Batch) -> Batch:
        return batch | {"targets": torch.full_like(batch["targets"], IGNORED)}


def rows_of(rows: Rows) -> list[tuple[Array, Array]]:
    """Pieces as signed numbers, beside which a mark for what is not asked has room."""
    return [(pieces.astype(np.int64), asked) for pieces, asked in rows]


class PackLoader(BucketLoader):
    """Batches of rows that hold as many whole conversations as fit."""

    collate: CollateConversations

    def __init__(self, *args: Any, row_tokens: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.row_tokens: int = row_tokens

    @cached_property
    def buckets(self) -> Any:
        """What goes together."""
        lengths = self.collate.read(self.split.lengths)[:, 0]
        return Packs(lengths, self.row_tokens, self.batch_tokens)

    def _collated(self, rows: Any) -> Batch:
        packs = [[self.split.pair(index) for index in row.tolist()] for row in rows]
        return self.collate.packed(packs)


class ConversationsDataModule(TablesDataModule):
    """Reads conversations from tables and serves them in batches of like length, or packed.

    Args:
        conversations: Where they come from; their form is told by their columns.
        tokenizer: The tokenizer to train on what is said, or to load.
        directory: Where tokenizer and tokens are kept; used again while nothing has changed.
        batch_tokens: Most pieces of a training batch per process, padding included.
        eval_batch_tokens: The same for validation and test. Default: twice batch_tokens.
        seed: Of the order in which training batches are drawn.
        pack: Train on rows of max_len pieces that hold as many whole conversations as fit, none of
            which sees another: hardly any padding, and batches that are alike.
    """

    def __init__(
        self,
        conversations: ConversationsConfig,
        tokenizer: TokenizerRecipe,
        directory: str,
        batch_tokens: int = 4096,
        eval_batch_tokens: int | None = None,
        seed: int = 0,
        pack: bool = False,
    ) -> None:
        super().__init__(conversations, tokenizer, directory, batch_tokens, eval_batch_tokens, seed)
        self.conversations, self.pack = conversations, pack

    def prepare(self) -> Examples:
        """The conversations, made anew where they have changed."""
        return prepare_conversations(
            self.conversations, self.tokenizer_recipe, self.directory, progress=True
        )

    @property
    def longest_row(self) -> int:
        """Most pieces that the network reads in a row."""
        return self.conversations.max_len - 1

    def prompts(self, *, masked: bool, longest: int) -> list[str]:
        """What opens the first conversations of the validation split."""
        lines = self.examples.lines("valid")[:50]
        asked = [conversation_of(line) for line in lines]
        texts = [message.content for each in asked for message in each if message.role == "user"]
        return texts[:3]

    def _loader(self, split: str, batch_tokens: int, shuffle: bool) -> BucketLoader:
        if not (self.pack and split == "train"):
            return super()._loader(split, batch_tokens, shuffle)
        return PackLoader(
            self.examples.split(split),
            collate=self._collate(),
            batch_tokens=batch_tokens,
            order=order_in(self.trainer, self.seed, shuffle, self.checksum),
            row_tokens=self.longest_row,
        )

    def _collate(self) -> CollateConversations:
        return CollateConversations(self.tokenizer.pad_id)
