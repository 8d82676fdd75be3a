"""Keys and values of the tokens so far, in memory that is taken once."""

from typing import NamedTuple

import torch
from torch import Tensor

from gpt4o_lit.model.config import TransformerConfig
from gpt4o_lit.model.weight_format import round_inputs

# B batch, T new tokens, S kept tokens, K key heads, H head_dim


class Kept(NamedTuple):
    """Keys or values of a layer, by slot: floats, or whole numbers and a step for each vector."""

    numbers: Tensor
    """(B, S, K, H), floats or int8."""
    steps: Tensor | None
    """(B, S, K, 1) in float32, with int8 alone."""

    @classmethod
    def empty(
        cls, shape: tuple[int, int, int, int], device: torch.device | str, dtype: torch.dtype
    ) -> "Kept":
        """Zeros in this dtype; int8 gets its steps."""
        numbers = torch.zeros(shape, device=device, dtype=dtype)
        if dtype != torch.int8:
            return cls(numbers, None)
        return cls(numbers, torch.zeros(*shape[:-1], 1, device=device))

    def put(self, rows: Tensor, slots: Tensor, x_BTKH: Tensor) -> None:
        """Write vectors into these slots of these rows."""
        for kept, new in zip(self.tensors, self._stored(x_BTKH), strict=True):
            kept.index_put_((rows, slots), new)

    def put_behind(self, start: int, x_BTKH: Tensor) -> None:
        """Write vectors behind one another, in all rows from the same slot on."""
        for kept, new in zip(self.tensors, self._stored(x_BTKH), strict=True):
            kept[:, start : start + x_BTKH.shape[1]] = new

    def read(self, end: int) -> Tensor:
        """The vectors of the first slots: (B, S, K, H)."""
        if self.steps is None:
            return self.numbers[:, :end]
        return self.numbers[:, :end].float() * self.steps[:, :end]

    def part(self, size: int) -> "Kept":
        """The first slots, in the same memory."""
        return Kept(self.numbers[:, :size], None if self.steps is None else self.steps[:, :size])

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Those that there are."""
        return (self.numbers,) if self.steps is None else (self.numbers, self.steps)

    def _stored(self, x_BTKH: Tensor) -> tuple[Tensor, ...]:
        if self.steps is None:
            return (x_BTKH.to(self.numbers.dtype),)
        numbers, steps = round_inputs(x_BTKH.float())
        return numbers.to(torch.int8), steps


class KVCache:
    """Room for the keys and values of `batch_size` rows of up to `max_seq_len` tokens.

    Rows may have unequal lengths: new tokens whose document is -1 are padding on the right, take
    no room, and are written over by what comes next.

    Args:
        config: The network's config; it has a decoder.
        batch_size: Rows.
        max_seq_len: The longest row, prompt and output together.
        dtype: In which keys and values are kept. int8 rounds each vector by its own largest number;
            those of an encoder's output stay as they are.
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
        self.keys = [Kept.empty(shape, device, dtype) for _ in layers]
        self.values = [Kept.empty(shape, device, dtype) for _ in layers]
        self.lengths_B = torch.zeros(batch_size, dtype=torch.long, device=device)
        self.max_seq_len = max_seq_len
        self.used = 0
        """Tokens in the longest row."""
        self.ragged = False
        """Whether rows have unequal lengths."""
        self.cross: list[tuple[Tensor, Tensor]] = []
        """Keys and values of the encoder's output, a pair per layer."""
        self.source_documents_BS: Tensor | None = None
        self._parts: tuple[int, tuple[list[Kept], list[Kept]]] | None = None

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
            rows = torch.arange(len(k_BTKH), device=k_BTKH.device)[:, None]
            slots = self.places(length) % self.slots
            keys.put(rows, slots, k_BTKH)
            values.put(rows, slots, v_BTKH)
        else:
            keys.put_behind(self.used, k_BTKH)
            values.put_behind(self.used, v_BTKH)
        return keys.read(end), values.read(end)

    def parts(self, size: int) -> tuple[list[Kept], list[Kept]]:
        """The first slots of all layers' keys and values; made once until size or rows change."""
        if self._parts is None or self._parts[0] != size:
            keys = [kept.part(size) for kept in self.keys]
            values = [kept.part(size) for kept in self.values]
            self._parts = size, (keys, values)
        return self._parts[1]

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be taken more than once (beam search)."""
        end = min(self.used, self.slots)
        for kept in (self.keys, self.values):
            for layer, old in enumerate(kept):
                if len(rows) != len(old.numbers):
                    self._parts = None
                    shape = (len(rows), *old.numbers.shape[1:])
                    kept[layer] = Kept.empty(shape, old.numbers.device, old.numbers.dtype)
                for new, tensor in zip(kept[layer].tensors, old.tensors, strict=True):
                    new[:, :end] = tensor[rows, :end]
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
