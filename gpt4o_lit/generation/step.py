"""One step of writing: from each row's last token to the scores of the next, perhaps compiled."""

from typing import Any

import torch
from torch import Tensor

from gpt4o_lit.generation.prefill import UNCOMPILED, places_for
from gpt4o_lit.model import KVCache, Transformer
from gpt4o_lit.model.cache import places_in_slots
from gpt4o_lit.model.linear import pack_

# B batch, S places, K key heads, H head_dim, V vocab


class Step:
    """Scores of the next tokens; compiled, it is made anew when a batch or the places grow.

    On a CPU a compiled step of few rows reads weights at the speed of memory, several times that of
    an eager one; making it takes half a minute, and some seconds in later processes. For three rows
    and more it keeps the weights in memory once more.
    """

    def __init__(self, transformer: Transformer, num_pieces: int, *, compiled: bool) -> None:
        self.transformer, self.num_pieces = transformer, num_pieces
        self._compiled = torch.compile(self._scores) if compiled else None
        self._rows = 0

    def __call__(self, tokens_B1: Tensor, cache: KVCache) -> Tensor:
        """Scores (B, V) in float32 behind these tokens, which are added to the cache."""
        if self._compiled is None:
            with torch.compiler.set_stance(UNCOMPILED):
                hidden_B1D = self.transformer.hidden(tokens_B1, cache=cache)
                return self.scores(hidden_B1D[:, 0])
        if len(tokens_B1) != self._rows:
            self._rows = len(tokens_B1)
            pack_(self.transformer, self._rows)
        cache.require_room(1)
        size = places_for(min(cache.used + 1, cache.slots), cache.slots)
        logits_BV: Tensor = self._compiled(
            tokens_B1,
            cache.lengths_B,
            cache.slots,
            [keys[:, :size] for keys in cache.keys],
            [values[:, :size] for values in cache.values],
            cache.cross,
            cache.source_documents_BS,
        )
        cache.advance(1, None)
        return logits_BV

    def scores(self, hidden_BD: Tensor) -> Tensor:
        """Scores (B, V) of the pieces in float32, from final states."""
        return self.transformer.head(hidden_BD)[:, : self.num_pieces].float()

    def _scores(self, tokens_B1: Tensor, *parts: Any) -> Tensor:
        hidden_B1D = self.transformer.hidden(tokens_B1, cache=_FixedCache(*parts))  # type: ignore[arg-type]
        return self.scores(hidden_B1D[:, 0])


class _FixedCache:
    """The places of a KVCache as a compiled step sees them: as many at every step, masked."""

    ragged = True

    def __init__(
        self,
        lengths_B: Tensor,
        slots: int,
        keys: list[Tensor],
        values: list[Tensor],
        cross: list[tuple[Tensor, Tensor]],
        source_documents_BS: Tensor | None,
    ) -> None:
        self.lengths_B, self.slots, self.keys, self.values = lengths_B, slots, keys, values
        self.cross, self.source_documents_BS = cross, source_documents_BS
        self.used = keys[0].shape[1] - 1

    def places(self, length: int) -> Tensor:
        """The place of each row's new token: (B, 1)."""
        assert length == 1
        return self.lengths_B[:, None]

    def places_kept(self, length: int) -> Tensor:
        """The place that each slot holds, negative where it holds nothing: (B, S)."""
        slots_S = torch.arange(self.used + length, device=self.lengths_B.device)
        return places_in_slots(self.lengths_B[:, None], slots_S, self.slots)

    def write(self, layer: int, k_B1KH: Tensor, v_B1KH: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values of the new tokens; gives all places: (B, S, K, H)."""
        keys, values = self.keys[layer], self.values[layer]
        rows_B = torch.arange(len(keys), device=keys.device)
        slots_B = self.lengths_B % self.slots
        keys.index_put_((rows_B, slots_B), k_B1KH[:, 0].to(keys.dtype))
        values.index_put_((rows_B, slots_B), v_B1KH[:, 0].to(values.dtype))
        return keys, values

    def require_room(self, length: int) -> None:
        """The KVCache has looked."""

    def advance(self, length: int, documents_BT: Tensor | None) -> None:
        """The KVCache counts."""
