"""The data module of labelled texts."""

from dataclasses import dataclass

import numpy as np
import torch

from gpt4o_lit.corpus import Examples, LabelledConfig, prepare_labelled
from gpt4o_lit.corpus.buckets import Array
from gpt4o_lit.corpus.labelled import LabelledText, labelled_texts
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

# B texts, T pieces, C classes


@dataclass(frozen=True)
class CollateLabelled(Collate):
    """`tokens` and `documents` (B, T): bos, the text, eos; and how many of them are no padding:
    `source_len`. `targets`: (B,) the class of each, or (B, C) bool where a text may have several.
    """

    pad_id: int
    bos_id: int
    eos_id: int
    num_classes: int
    multi_label: bool

    def read(self, lengths: Array) -> Array:
        """The ends too; classes are not read."""
        return np.stack([lengths[:, 0] + 2, np.zeros_like(lengths[:, 1])], axis=1)

    def __call__(self, rows: Rows) -> Batch:
        tokens = [np.concatenate([[self.bos_id], text, [self.eos_id]]) for text, _ in rows]
        batch: Batch = {
            "tokens": padded(tokens, self.pad_id),
            "documents": padded([np.zeros_like(text) for text in tokens], PADDING),
            "source_len": sum(map(len, tokens)),
        }
        if not self.multi_label:
            return batch | {"targets": torch.tensor([int(target[0]) for _, target in rows])}
        targets_BC = torch.zeros(len(rows), self.num_classes, dtype=torch.bool)
        for row, (_, target) in zip(targets_BC, rows, strict=True):
            row[target.astype(np.int64)] = True
        return batch | {"targets": targets_BC}

    def nothing_asked(self, batch: Batch) -> Batch:
        """One class: a target that is ignored. Several: no row of targets."""
        targets = batch["targets"]
        return batch | {
            "targets": targets[:0] if self.multi_label else torch.full_like(targets, IGNORED)
        }


class LabelledDataModule(TablesDataModule):
    """Reads labelled texts from tables and serves them in batches of like length.

    Args:
        labelled: Where they come from, and what of a row is text and label.
        tokenizer: The tokenizer to train on the training texts, or to load.
        directory: Where tokenizer and tokens are kept; used again while nothing has changed.
        batch_tokens: Most pieces of a training batch per process, padding included.
        eval_batch_tokens: The same for validation and test. Default: twice batch_tokens.
        seed: Of the order in which training batches are drawn.
    """

    def __init__(
        self,
        labelled: LabelledConfig,
        tokenizer: TokenizerRecipe,
        directory: str,
        batch_tokens: int = 4096,
        eval_batch_tokens: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(labelled, tokenizer, directory, batch_tokens, eval_batch_tokens, seed)
        self.labelled = labelled

    def prepare(self) -> Examples:
        """The texts, made anew where they have changed."""
        return prepare_labelled(self.labelled, self.tokenizer_recipe, self.directory, progress=True)

    def prepare_data(self) -> None:
        """Tell of the classes too."""
        super().prepare_data()
        told = self.prepare().told
        pairs = list(zip(told["classes"], told["counts"], strict=True))
        print(f"classes: {', '.join(f'{name} ({count:,})' for name, count in pairs)}")
        for name, count in pairs:
            if count < 2:
                print(f"class {name} has {count} examples in train: too few to learn it")

    @property
    def classes(self) -> list[str]:
        """The names of the classes, by number."""
        return list(self.examples.told["classes"])

    @property
    def longest_row(self) -> int:
        """Most pieces that the network reads in a row."""
        return self.labelled.max_len

    def labelled_texts(self, split: str) -> list[LabelledText]:
        """Texts and labels of valid or test."""
        return labelled_texts(self.examples, split)

    def prompts(self, *, masked: bool, longest: int) -> list[str]:
        """Texts of the validation split."""
        return [text.texts[0] for text in self.labelled_texts("valid")[:3]]

    def _collate(self) -> CollateLabelled:
        tokenizer = self.tokenizer
        return CollateLabelled(
            tokenizer.pad_id,
            tokenizer.bos_id,
            tokenizer.eos_id,
            len(self.classes),
            self.labelled.multi_label,
        )
