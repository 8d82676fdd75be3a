"""The data module of preferences."""

from dataclasses import dataclass

import numpy as np
import torch

from gpt4o_lit.corpus import Examples, PreferencesConfig, prepare_preferences
from gpt4o_lit.corpus.buckets import Array
from gpt4o_lit.data.loader import Batch
from gpt4o_lit.data.tables import IGNORED, Collate, Rows, TablesDataModule, padded
from gpt4o_lit.tokenizer import TokenizerRecipe

# B preferences, T pieces


@dataclass(frozen=True)
class CollatePreferences(Collate):
    """`tokens` and `targets` (2 B, T): the chosen answers' rows, then the rejected ones', asked for
    the answers alone; and how many pieces there are but for padding: `source_len`, `target_len`.
    """

    pad_id: int

    def read(self, lengths: Array) -> Array:
        """Both rows without their last piece; the target's first number is no piece."""
        return np.asarray(lengths - np.array([1, 2]))

    def __call__(self, rows: Rows) -> Batch:
        tokens, targets = [], []
        for number in (0, 1):
            for source, target in rows:
                pieces = (target[1:] if number else source).astype(np.int64)
                asked = np.arange(1, len(pieces)) >= int(target[0])
                tokens.append(pieces[:-1])
                targets.append(np.where(asked, pieces[1:], IGNORED))
        return {
            "tokens": padded(tokens, self.pad_id),
            "targets": padded(targets, IGNORED),
            "source_len": sum(map(len, tokens)),
            "target_len": int(sum((target != IGNORED).sum() for target in targets)),
        }

    def nothing_asked(self, batch: Batch) -> Batch:
        return batch | {"targets": torch.full_like(batch["targets"], IGNORED)}


class PreferencesDataModule(TablesDataModule):
    """Reads preferences from tables and serves them in batches of like length.

    Args:
        preferences: Where they come from.
        tokenizer: The tokenizer to train on what is said, or to load.
        directory: Where tokenizer and tokens are kept; used again while nothing has changed.
        batch_tokens: Most pieces of a training batch per process, padding included.
        eval_batch_tokens: The same for validation and test. Default: twice batch_tokens.
        seed: Of the order in which training batches are drawn.
    """

    def __init__(
        self,
        preferences: PreferencesConfig,
        tokenizer: TokenizerRecipe,
        directory: str,
        batch_tokens: int = 4096,
        eval_batch_tokens: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(preferences, tokenizer, directory, batch_tokens, eval_batch_tokens, seed)
        self.preferences = preferences

    def prepare(self) -> Examples:
        """The preferences, made anew where they have changed."""
        return prepare_preferences(
            self.preferences, self.tokenizer_recipe, self.directory, progress=True
        )

    @property
    def longest_row(self) -> int:
        """Most pieces that the network reads in a row."""
        return self.preferences.max_len - 1

    def prompts(self, *, masked: bool, longest: int) -> list[str]:
        """What the first preferences of the validation split answer."""
        lines = self.examples.lines("valid")[:3]
        return [line["source"][-1]["content"] for line in lines]

    def _collate(self) -> CollatePreferences:
        return CollatePreferences(self.tokenizer.pad_id)
