"""The data module of conversations."""

from dataclasses import dataclass

import numpy as np
import torch

from gpt4o_lit.corpus import ConversationsConfig, Examples, prepare_conversations
from gpt4o_lit.corpus.buckets import Array
from gpt4o_lit.corpus.conversations import conversation_of
from gpt4o_lit.data.loader import Batch
from gpt4o_lit.data.tables import IGNORED, Collate, Rows, TablesDataModule, padded
from gpt4o_lit.tokenizer import TokenizerRecipe

# B conversations, T pieces


@dataclass(frozen=True)
class CollateConversations(Collate):
    """`tokens` and `targets` (B, T): each piece that an assistant says is asked where the one
    before it stands; and how many pieces there are but for padding: `source_len`, `target_len`."""

    pad_id: int

    def read(self, lengths: Array) -> Array:
        """The last piece is asked and not read; which are asked is not read."""
        return np.stack([lengths[:, 0] - 1, np.zeros_like(lengths[:, 1])], axis=1)

    def __call__(self, rows: Rows) -> Batch:
        targets = [np.where(asked[1:] > 0, pieces[1:], IGNORED) for pieces, asked in rows_of(rows)]
        tokens = [pieces[:-1] for pieces, _ in rows]
        return {
            "tokens": padded(tokens, self.pad_id),
            "targets": padded(targets, IGNORED),
            "source_len": sum(map(len, tokens)),
            "target_len": int(sum((target != IGNORED).sum() for target in targets)),
        }

    def nothing_asked(self, batch: Batch) -> Batch:
        return batch | {"targets": torch.full_like(batch["targets"], IGNORED)}


def rows_of(rows: Rows) -> list[tuple[Array, Array]]:
    """Pieces as signed numbers, beside which a mark for what is not asked has room."""
    return [(pieces.astype(np.int64), asked) for pieces, asked in rows]


class ConversationsDataModule(TablesDataModule):
    """Reads conversations from tables and serves them in batches of like length.

    Args:
        conversations: Where they come from; their form is told by their columns.
        tokenizer: The tokenizer to train on what is said, or to load.
        directory: Where tokenizer and tokens are kept; used again while nothing has changed.
        batch_tokens: Most pieces of a training batch per process, padding included.
        eval_batch_tokens: The same for validation and test. Default: twice batch_tokens.
        seed: Of the order in which training batches are drawn.
    """

    def __init__(
        self,
        conversations: ConversationsConfig,
        tokenizer: TokenizerRecipe,
        directory: str,
        batch_tokens: int = 4096,
        eval_batch_tokens: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(conversations, tokenizer, directory, batch_tokens, eval_batch_tokens, seed)
        self.conversations = conversations

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

    def _collate(self) -> CollateConversations:
        return CollateConversations(self.tokenizer.pad_id)
