"""One step of writing: from each row's last tokens to the scores behind them, perhaps compiled."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from gpt4o_lit.generation.prefill import UNCOMPILED, places_for
from gpt4o_lit.model import KVCache, Transformer
from gpt4o_lit.model.cache import Kept, places_in_slots
from gpt4o_lit.model.linear import pack_

# B batch, T tokens, S places, K key heads, H head_dim, V vocab

# Each network, batch, number of tokens and of places is compiled for itself; Dynamo's own limit of
# 8 would leave the rest eager without a word.
MOST_COMPILED = 64


class Step:
    """Scores behind some tokens; compiled, it is made anew when a batch or the places grow.

    On a CPU a compiled step of few rows reads weights at the speed of memory, several times that of
    an eager one; making it takes half a minute, and some seconds in later processes. For three rows
    and more it keeps the weights in memory once more. On a GPU it is recorded as a CUDA graph and
    played again, which spares the launch of each kernel.

    Args:
        num_pieces: Pieces that are scored, the first ones.
        lengths: Numbers of tokens that a compiled step is made for; others are read eagerly.
    """

    def __init__(
        self,
        transformer: Transformer,
        num_pieces: int,
        *,
        compiled: bool,
        lengths: Sequence[int] = (1,),
    ) -> None:
        self.transformer, self.num_pieces, self.lengths = transformer, num_pieces, lengths
        self._replays = compiled and transformer.head.weight.device.type == "cuda"
        mode = "reduce-overhead" if self._replays else None
        self._compiled = torch.compile(self._scores, mode=mode) if compiled else None
        self._rows = 0

    def __call__(self, tokens_BT: Tensor, cache: KVCache) -> Tensor:
        """Scores (B, T, V) in float32 behind these tokens, which are added to the cache."""
        length = tokens_BT.shape[1]
        if self._compiled is None or length not in self.lengths:
            with torch.compiler.set_stance(UNCOMPILED):
                return self.scores(self.transformer.hidden(tokens_BT, cache=cache))
        if tokens_BT.numel() != self._rows:
            self._rows = tokens_BT.numel()
            pack_(self.transformer, self._rows)
        cache.require_room(length)
        size = places_for(min(cache.used + length, cache.slots), cache.slots)
        torch._dynamo.mark_static(tokens_BT)
        keys = [each.part(size) for each in cache.keys]
        values = [each.part(size) for each in cache.values]
        if self._replays:
            torch.compiler.cudagraph_mark_step_begin()
            tensors = chain.from_iterable(each.tensors for each in (*keys, *values))
            for kept in (*tensors, *chain.from_iterable(cache.cross)):
                # It is read and written where it is, not copied to where the graph was recorded.
                torch._dynamo.mark_static_address(kept, guard=False)
        with torch._dynamo.config.patch(recompile_limit=MOST_COMPILED):
            logits_BTV: Tensor = self._compiled(
                tokens_BT,
                cache.lengths_B,
                cache.slots,
                keys,
                values,
                cache.cross,
                cache.source_documents_BS,
            )
        cache.advance(length, None)
        return logits_BTV.clone() if self._replays else logits_BTV  # the next step writes over it

    def scores(self, hidden: Tensor) -> Tensor:
        """Scores (..., V) of the pieces in float32, from final states (..., D)."""
        return self.transformer.head(hidden)[..., : self.num_pieces].float()

    def _scores(self, tokens_BT: Tensor, *parts: Any) -> Tensor:
        cache = _FixedCache(tokens_BT.shape[1], *parts)
        return self.scores(self.transformer.hidden(tokens_BT, cache=cache))  # type: ignore[arg-type]


class _FixedCache:
    """The places of a KVCache as a compiled step sees them: as many at every step, masked."""

    ragged = True

    def __init__(
        self,
        length: int,
        lengths_B: Tensor,
        slots: int,
        keys: list[Kept],
        values: list[Kept],
        cross: list[tuple[Tensor, Tensor]],
        source_documents_BS: Tensor | None,
    ) -> None:
        self.lengths_B, self.slots, self.keys, self.values = lengths_B, slots, keys, values
        self.cross, self.source_documents_BS = cross, source_documents_BS
        self.used = keys[0].numbers.shape[1] - length

    def places(self, length: int) -> Tensor:
        """The places of each row's new tokens: (B, T)."""
        return self.lengths_B[:, None] + torch.arange(length, device=self.lengths_B.device)

    def places_kept(self, length: int) -> Tensor:
        """The place that each slot holds, negative where it holds nothing: (B, S)."""
        slots_S = torch.arange(self.used + length, device=self.lengths_B.device)
        return places_in_slots(self.places(length)[:, -1:], slots_S, self.slots)

    def write(self, layer: int, k_BTKH: Tensor, v_BTKH: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values of the new tokens; gives all places: (B, S, K, H)."""
        keys, values = self.keys[layer], self.values[layer]
        rows_B1 = torch.arange(len(k_BTKH), device=k_BTKH.device)[:, None]
        slots_BT = self.places(k_BTKH.shape[1]) % self.slots
        keys.put(rows_B1, slots_BT, k_BTKH)
        values.put(rows_B1, slots_BT, v_BTKH)
        end = self.used + k_BTKH.shape[1]
        return keys.read(end), values.read(end)

    def require_room(self, length: int) -> None:
        """The KVCache has looked."""

    def advance(self, length: int, documents_BT: Tensor | None) -> None:
        """The KVCache counts."""
