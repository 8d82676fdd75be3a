"""What data modules of examples out of tables have in common: their loaders and what they tell."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor

from gpt4o_lit.corpus import Examples, ExampleSplit
from gpt4o_lit.corpus.buckets import Array, Buckets
from gpt4o_lit.corpus.examples import TablesConfig
from gpt4o_lit.data.loader import Batch, Order, ResumableLoader, order_in
from gpt4o_lit.tokenizer import Tokenizer, TokenizerRecipe

IGNORED = -100  # the target of a position that is asked nothing
PADDING = -1  # the document of a position that nobody sees
Rows = Sequence[tuple[Array, Array]]
"""Source and target of some examples."""


class Collate(ABC):
    """Makes a batch of examples."""

    @abstractmethod
    def read(self, lengths: Array) -> Array:
        """Pieces of the two rows that an example takes, (N, 2), by the lengths of its sides."""

    @abstractmethod
    def __call__(self, rows: Rows) -> Batch:
        """What the task takes, padded on the right."""

    @abstractmethod
    def nothing_asked(self, batch: Batch) -> Batch:
        """The same batch with no targets: a process that has no example reads it all the same."""


class BucketLoader(ResumableLoader):
    """Batches of examples of like length.

    Args:
        collate: Makes a batch of examples.
        batch_tokens: Most pieces of a batch on one process, padding included.
    """

    row_tokens: int | None = None
    """Pieces of a row that holds several examples; None: each is a row of its own."""

    def __init__(
        self,
        split: ExampleSplit,
        *,
        collate: Collate,
        batch_tokens: int,
        order: Order,
        limit: int | None = None,
    ) -> None:
        super().__init__(order, limit)
        self.split, self.collate = split, collate
        self.batch_tokens = batch_tokens * self.processes

    @cached_property
    def buckets(self) -> Buckets:
        """What goes together."""
        return Buckets(self.collate.read(self.split.lengths), self.batch_tokens)

    def _batches(self) -> int:
        return len(self.buckets)

    def _turns(self) -> list[Array]:
        seed = (self.order.seed, self.epoch) if self.order.shuffle else None
        return self.buckets.batches(seed)

    def _batch(self, turns: list[Array], number: int, rank: int) -> Batch:
        whole = turns[number]
        mine = whole[rank :: self.processes]
        if len(mine):
            return self._collated(mine)
        # Of long examples a batch may have fewer than there are processes.
        return self.collate.nothing_asked(self._collated(whole[:1]))

    def _collated(self, rows: Array) -> Batch:
        return self.collate([self.split.pair(index) for index in rows.tolist()])

    def _order_settings(self) -> dict[str, Any]:
        return {
            "the examples' checksum": self.order.checksum,
            "batch_tokens x processes": self.batch_tokens,
            "the length of packed rows": self.row_tokens,
            "seed": self.order.seed,
        }


class TablesDataModule(LightningDataModule, ABC):
    """Prepares examples once and serves them in batches of like length; a subclass says which."""

    def __init__(
        self,
        tables: TablesConfig,
        tokenizer: TokenizerRecipe,
        directory: str,
        batch_tokens: int,
        eval_batch_tokens: int | None,
        seed: int,
    ) -> None:
        super().__init__()
        sizes = {"batch_tokens": batch_tokens, "eval_batch_tokens": eval_batch_tokens}
        for name, size in sizes.items():
            if size is not None and size < tables.longest:
                raise ValueError(
                    f"{name} ({size}) must have room for the longest example ({tables.longest} "
                    "pieces); raise it, or lower the longest source and target"
                )
        self._tables = tables
        self.tokenizer_recipe, self.directory = tokenizer, Path(directory)
        self.batch_tokens, self.seed = batch_tokens, seed
        self.eval_batch_tokens = eval_batch_tokens or 2 * batch_tokens
        self._prepared: Examples | None = None

    @abstractmethod
    def prepare(self) -> Examples:
        """The examples, made anew where they have changed."""

    @property
    @abstractmethod
    def longest_row(self) -> int:
        """Most pieces that the network reads in a row."""

    @abstractmethod
    def _collate(self) -> Collate:
        """What makes batches."""

    def prepare_data(self) -> None:
        """Read and encode the examples, or see that it has been done; tell what was left out."""
        for split, counts in self.prepare().counts.items():
            told = [f"{number:,} {kind}" for kind, number in counts.items() if number]
            print(f"{split}: {', '.join(told) or 'nothing'}")

    def setup(self, stage: str) -> None:
        """Open what `prepare_data` left, on every process the same."""
        self.examples  # noqa: B018  read here, and not at the first batch

    @property
    def examples(self) -> Examples:
        """What was prepared."""
        if self._prepared is None:
            self._prepared = Examples(self.directory)
        return self._prepared

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of all texts."""
        return self.examples.tokenizer

    @property
    def checksum(self) -> str:
        """Equal checksums: the same pieces in the same order."""
        return self.examples.identity

    @property
    def tokens_per_batch(self) -> int:
        """About the pieces of a training batch on each process."""
        return self.batch_tokens

    @property
    def batches_per_epoch(self) -> int:
        """Training batches in an epoch on each process, within Trainer's limit."""
        loader = self.train_dataloader()
        return len(loader) if loader.limit is None else min(loader.limit, len(loader))

    def train_dataloader(self) -> BucketLoader:
        """All training examples, in an order of its own for each epoch; always the same few to
        overfit on."""
        trainer: Any = self.trainer
        shuffle = not (trainer and trainer.overfit_batches)
        loader = self._loader("train", self.batch_tokens, shuffle)
        limit = trainer.limit_train_batches if trainer else None
        loader.limit = int(limit * len(loader)) if isinstance(limit, float) else limit
        return loader

    def val_dataloader(self) -> BucketLoader:
        """Every example of the validation split, by length."""
        return self._loader("valid", self.eval_batch_tokens, False)

    def test_dataloader(self) -> BucketLoader:
        """Every example of the test split, by length."""
        return self._loader("test", self.eval_batch_tokens, False)

    def predict_dataloader(self) -> BucketLoader:
        """The test split."""
        return self.test_dataloader()

    def trained_on(self, batches: int) -> str:
        """A sentence on the data and how often so many batches on all processes saw it."""
        counts, loader = self.examples.counts["train"], self.train_dataloader()
        source = self._tables.train
        named = list(source.values()) if isinstance(source, dict) else source
        files = ", ".join(f"`{file}`" for file in ([named] if isinstance(named, str) else named))
        return (
            f"{files}: {counts['examples']:,} examples, {counts['source pieces']:,} pieces of "
            f"sources and {counts['target pieces']:,} of targets, {loader.buckets.padding:.1%} "
            f"padding in batches; seen {batches / max(1, len(loader)):.2f} times."
        )

    def _loader(self, split: str, batch_tokens: int, shuffle: bool) -> BucketLoader:
        return BucketLoader(
            self.examples.split(split),
            collate=self._collate(),
            batch_tokens=batch_tokens,
            order=order_in(self.trainer, self.seed, shuffle, self.checksum),
        )


def padded(rows: Sequence[Array], filler: int) -> Tensor:
    """Rows of numbers in one tensor, filled up on the right: int64 (rows, longest)."""
    out = np.full((len(rows), max(map(len, rows))), filler, dtype=np.int64)
    for line, row in zip(out, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(out)
