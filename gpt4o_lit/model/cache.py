"""Keys and values of the tokens so far, in memory that is taken once."""

import torch
from torch import Tensor

from gpt4o_lit.model.config import TransformerConfig

# B batch, T new tokens, S kept tokens, K key heads, H head_dim


class KVCache:
    """Room for the keys and values of `batch_size` rows of up to `max_seq_len` tokens.

    Rows may have unequal lengths: new tokens whose document is -1 are padding on the right, take
    no room, and are written over by what comes next.

    Args:
        config: The network's config; it has a decoder.
        batch_size: Rows.
        max_seq_len: The longest row, prompt and output together.
        longest_read: Most tokens that are read at once. Given, a network with a window has room for
            no more than its window and these: what nobody sees any more is written over.
    """

    def __init__(
        self,
        config: TransformerConfig,
        batch_size: int,
        max_seq_len: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        longest_read: int | None = None,
    ) -> None:
        if config.decoder is None:
            raise ValueError("a KVCache needs a decoder, but the config gives an encoder alone")
        stack, heads = config.decoder, config.decoder.attention.kv_heads
        window = stack.attention.window
        self.slots = max_seq_len
        if window is not None and longest_read is not None:
            self.slots = min(max_seq_len, window + longest_read)
        shape = (batch_size, self.slots, heads, stack.head_dim)
        layers = range(stack.num_layers)
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in layers]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in layers]
        self.lengths_B = torch.zeros(batch_size, dtype=torch.long, device=device)
        self.max_seq_len = max_seq_len
        self.used = 0
        """Tokens in the longest row."""
        self.ragged = False
        """Whether rows have unequal lengths."""
        self.cross: list[tuple[Tensor, Tensor]] = []
        """Keys and values of the encoder's output, a pair per layer."""
        self.source_documents_BS: Tensor | None = None

    def places(self, length: int) -> Tensor:
        """Places of the next tokens in their rows: (B, T), or (1, T) when rows are equally long."""
        steps = torch.arange(length, device=self.lengths_B.device)
        return self.lengths_B[:, None] + steps if self.ragged else (self.used + steps)[None]

    @property
    def wraps(self) -> bool:
        """Whether places beyond the last slot are written from the first on again."""
        return self.slots < self.max_seq_len

    def places_kept(self, length: int) -> Tensor:
        """The place in its row that each slot holds when `length` tokens are written: (B, S).

        Rows are one where they are equally long. Negative where a slot holds nothing.
        """
        slots_S = torch.arange(min(self.used + length, self.slots), device=self.lengths_B.device)
        if not self.wraps:
            return slots_S[None]
        return places_in_slots(self.places(length)[:, -1:], slots_S, self.slots)

    def write(self, layer: int, k_BTKH: Tensor, v_BTKH: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values of new tokens; returns those of all that are kept: (B, S, K, H)."""
        keys, values, length = self.keys[layer], self.values[layer], k_BTKH.shape[1]
        end = self.used + length
        if self.ragged or end > self.slots:
            rows = torch.arange(len(keys), device=keys.device)[:, None]
            slots = self.places(length) % self.slots
            keys[rows, slots] = k_BTKH.to(keys.dtype)
            values[rows, slots] = v_BTKH.to(values.dtype)
        else:
            keys[:, self.used : end] = k_BTKH
            values[:, self.used : end] = v_BTKH
        return keys[:, :end], values[:, :end]

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be taken more than once (beam search)."""
        end = min(self.used, self.slots)
        for tensors in (self.keys, self.values):
            for layer, kept in enumerate(tensors):
                if len(rows) != len(kept):
                    tensors[layer] = kept.new_zeros(len(rows), *kept.shape[1:])
                tensors[layer][:, :end] = kept[rows, :end]
        self.lengths_B = self.lengths_B[rows]
        self.cross = [(keys[rows], values[rows]) for keys, values in self.cross]
        if self.source_documents_BS is not None:
            self.source_documents_BS = self.source_documents_BS[rows]

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens of each row; rows are equally long."""
        assert not self.ragged, "rows of unequal lengths have no common length to go back to"
        assert 0 <= length <= self.used
        self.lengths_B.fill_(length)
        self.used = length

    def require_room(self, length: int) -> None:
        """Refuse more tokens than there is room for."""
        if self.used + length > self.max_seq_len:
            raise ValueError(
                f"the cache has room for {self.max_seq_len} tokens, but {self.used} + {length} are "
                "asked for; make max_seq_len larger or write fewer tokens"
            )

    def advance(self, length: int, documents_BT: Tensor | None) -> None:
        """Count new tokens in, all layers having written them."""
        if documents_BT is None:
            self.lengths_B += length
            self.used += length
            return
        self.lengths_B += (documents_BT >= 0).sum(1)
        self.used = int(self.lengths_B.max())
        self.ragged = self.ragged or bool((self.lengths_B != self.used).any())


def places_in_slots(newest_B1: Tensor, slots_S: Tensor, num_slots: int) -> Tensor:
    """The latest place up to the newest that each slot of a ring has been written for: (B, S)."""
    return newest_B1 - (newest_B1 - slots_S) % num_slots
