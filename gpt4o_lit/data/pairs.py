"""The data module of pairs: rows of tables in, batches of like length out."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor

from gpt4o_lit.corpus import Pairs, PairsConfig, PairSplit, prepare_pairs
from gpt4o_lit.corpus.buckets import Buckets
from gpt4o_lit.corpus.pairs import Pair
from gpt4o_lit.data.loader import Batch, ResumableLoader
from gpt4o_lit.tokenizer import Tokenizer, TokenizerRecipe

IGNORED = -100  # the target of a position that is asked nothing
PADDING = -1  # the document of a position that nobody sees

# B pairs, S source pieces, T target pieces


class PairsLoader(ResumableLoader):
    """Batches of pairs of like length, padded on the right.

    `source` and `source_documents` (B, S) for an encoder, `tokens` and `targets` (B, T), and how
    many pieces there are but for padding: `source_len`, `target_len`. A decoder that reads source
    and target in one row has no `source`.

    Args:
        joined: Source and target in one row, for a decoder alone.
    """

    def __init__(
        self,
        split: PairSplit,
        *,
        tokenizer: Tokenizer,
        batch_tokens: int,
        joined: bool,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        limit: int | None = None,
        checksum: str = "",
    ) -> None:
        super().__init__(rank, world_size, seed, shuffle, limit, checksum)
        self.split, self.joined = split, joined
        self.batch_tokens = batch_tokens * world_size
        self.pad_id, self.eos_id = tokenizer.pad_id, tokenizer.eos_id

    @cached_property
    def buckets(self) -> Buckets:
        """What goes together."""
        ends = np.array([0, 1]) if self.joined else 1
        return Buckets(self.split.lengths + ends, self.batch_tokens)

    def __len__(self) -> int:
        return len(self.buckets)

    def _order(self) -> list[Any]:
        return self.buckets.batches((self.seed, self.epoch) if self.shuffle else None)

    def _batch(self, order: list[Any], number: int) -> Batch:
        whole = order[number]
        mine = whole[self.rank :: self.world_size]
        # Of long pairs a batch may have fewer than there are processes: one is asked nothing then.
        rows = [self.split.pair(index) for index in (mine if len(mine) else whole[:1]).tolist()]
        batch = self._joined(rows) if self.joined else self._apart(rows)
        if not len(mine):
            batch["targets"] = torch.full_like(batch["targets"], IGNORED)
        ends = 0 if self.joined else len(rows)
        batch["source_len"] = sum(len(source) for source, _ in rows) + ends
        batch["target_len"] = sum(len(target) + 1 for _, target in rows)
        return batch

    def _apart(self, rows: Sequence[tuple[Any, Any]]) -> Batch:
        """The encoder reads the source and its end; the decoder pad, and then the target."""
        sources = [np.append(source, self.eos_id) for source, _ in rows]
        return {
            "source": _padded(sources, self.pad_id),
            "source_documents": _padded([np.zeros_like(source) for source in sources], PADDING),
            "tokens": _padded([np.append(self.pad_id, target) for _, target in rows], self.pad_id),
            "targets": _padded([np.append(target, self.eos_id) for _, target in rows], IGNORED),
        }

    def _joined(self, rows: Sequence[tuple[Any, Any]]) -> Batch:
        """The decoder reads both and is asked for what comes behind the source."""
        tokens = [np.concatenate(row) for row in rows]
        targets = [
            np.concatenate([np.full(len(source) - 1, IGNORED), target, [self.eos_id]])
            for source, target in rows
        ]
        return {"tokens": _padded(tokens, self.pad_id), "targets": _padded(targets, IGNORED)}

    def _order_settings(self) -> dict[str, Any]:
        return {
            "the pairs' checksum": self.checksum,
            "batch_tokens x processes": self.batch_tokens,
            "seed": self.seed,
        }


class PairsDataModule(LightningDataModule):
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
        super().__init__()
        longest = pairs.max_source_len + pairs.max_target_len
        for name, value in (
            ("batch_tokens", batch_tokens),
            ("eval_batch_tokens", eval_batch_tokens),
        ):
            if value is not None and value < longest:
                raise ValueError(
                    f"{name} ({value}) must have room for the longest pair, max_source_len + "
                    f"max_target_len ({longest}); raise it or lower them"
                )
        self.pairs, self.tokenizer_recipe, self.directory = pairs, tokenizer, Path(directory)
        self.batch_tokens, self.seed = batch_tokens, seed
        self.eval_batch_tokens = eval_batch_tokens or 2 * batch_tokens
        self.joined = False
        """Whether source and target stand in one row; the task knows."""
        self._prepared: Pairs | None = None

    def prepare_data(self) -> None:
        """Read and encode the pairs, or see that it has been done; tell what was left out."""
        prepared = prepare_pairs(self.pairs, self.tokenizer_recipe, self.directory, progress=True)
        for split, counts in prepared.counts.items():
            told = [f"{number:,} {kind}" for kind, number in counts.items() if number]
            print(f"{split}: {', '.join(told) or 'nothing'}")

    def setup(self, stage: str) -> None:
        """Open what `prepare_data` left, on every process the same."""
        self._opened()

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of both sides."""
        return self._opened().tokenizer

    @property
    def checksum(self) -> str:
        """Equal checksums: the same pieces in the same order."""
        return self._opened().identity

    @property
    def tokens_per_batch(self) -> int:
        """About the pieces of a training batch on each process."""
        return self.batch_tokens

    @property
    def longest_row(self) -> int:
        """Most pieces that the network reads in a row."""
        longest = self.pairs.max_source_len, self.pairs.max_target_len
        return sum(longest) if self.joined else max(longest)

    @property
    def batches_per_epoch(self) -> int:
        """Training batches in an epoch on each process, within Trainer's limit."""
        loader = self.train_dataloader()
        return len(loader) if loader.limit is None else min(loader.limit, len(loader))

    def train_dataloader(self) -> PairsLoader:
        """All training pairs, in an order of its own for each epoch; always the same few to overfit
        on."""
        trainer: Any = self.trainer
        shuffle = not (trainer and trainer.overfit_batches)
        loader = self._loader("train", self.batch_tokens, shuffle)
        limit = trainer.limit_train_batches if trainer else None
        loader.limit = int(limit * len(loader)) if isinstance(limit, float) else limit
        return loader

    def val_dataloader(self) -> PairsLoader:
        """Every pair of the validation split, by length."""
        return self._loader("valid", self.eval_batch_tokens, False)

    def test_dataloader(self) -> PairsLoader:
        """Every pair of the test split, by length."""
        return self._loader("test", self.eval_batch_tokens, False)

    def predict_dataloader(self) -> PairsLoader:
        """The test split."""
        return self.test_dataloader()

    def texts(self, split: str) -> list[Pair]:
        """Source and references of valid or test."""
        return self._opened().texts(split)

    def prompts(self, *, masked: bool, longest: int) -> list[str]:
        """The first validation sources that leave room for an answer."""
        texts = [pair.source for pair in self.texts("valid")[:100]]
        lengths = map(len, self.tokenizer.encode_batch(texts))
        return [text for text, n in zip(texts, lengths, strict=True) if n <= longest][:3]

    def trained_on(self, batches: int) -> str:
        """A sentence on the data and how often so many batches on all processes saw it."""
        counts, loader = self._opened().counts["train"], self.train_dataloader()
        epochs = batches / max(1, len(loader))
        sources = ", ".join(f"`{source}`" for source in _named(self.pairs.train))
        return (
            f"{sources}: {counts['pairs']:,} pairs, {counts['source pieces']:,} pieces of sources "
            f"and {counts['target pieces']:,} of targets, {loader.buckets.padding:.1%} padding in "
            f"batches; seen {epochs:.2f} times."
        )

    def _loader(self, split: str, batch_tokens: int, shuffle: bool) -> PairsLoader:
        trainer, pairs = self.trainer, self._opened()
        return PairsLoader(
            pairs.split(split),
            tokenizer=pairs.tokenizer,
            batch_tokens=batch_tokens,
            joined=self.joined,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
            seed=self.seed,
            shuffle=shuffle,
            checksum=self.checksum,
        )

    def _opened(self) -> Pairs:
        if self._prepared is None:
            self._prepared = Pairs(self.directory)
        return self._prepared


def _named(source: Any) -> list[str]:
    """The files of a source as a config names them."""
    if isinstance(source, dict):
        return list(source.values())
    return [source] if isinstance(source, str) else list(source)


def _padded(rows: list[Any], filler: int) -> Tensor:
    """Rows of numbers in one tensor, filled up on the right: int64 (rows, longest)."""
    out = np.full((len(rows), max(map(len, rows))), filler, dtype=np.int64)
    for line, row in zip(out, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(out)
