"""Who sees whom, worked out once for all layers of a stack."""

from dataclasses import dataclass

import torch
from torch import Tensor

# B batch, T query tokens, S key tokens, N heads


@dataclass(frozen=True)
class Mask:
    """What attention needs to know beside queries, keys and values."""

    causal: bool = False
    """Each token sees itself and its past; `allowed` is None then."""
    allowed: Tensor | None = None
    """True where a query sees a key: (B or 1, 1, T, S). None: `causal` says it all."""
    bias: Tensor | None = None
    """Added to the scores: (B or 1, N, T, S)."""


def self_mask(
    places_BT: Tensor,
    places_BS: Tensor,
    *,
    causal: bool,
    window: int | None = None,
    documents_BT: Tensor | None = None,
    prefix_BT: Tensor | None = None,
    bias: Tensor | None = None,
) -> Mask:
    """The mask of self-attention for queries and keys at these places of their rows (B may be 1).

    Documents and prefix are those of the keys too, so they go without a cache.
    """
    length, keys = places_BT.shape[-1], places_BS.shape[-1]
    plain = documents_BT is None and prefix_BT is None and (window is None or window >= keys)
    if plain and length == keys and places_BT is places_BS:
        return Mask(causal=causal, bias=bias)
    distance = places_BT[:, :, None] - places_BS[:, None, :]
    allowed = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    if prefix_BT is not None:
        allowed = allowed | prefix_BT[:, None, :]
    if window is not None:
        allowed = allowed & (distance.abs() < window)
    if documents_BT is not None:
        allowed = allowed & same_document(documents_BT, documents_BT)
    return Mask(allowed=_never_empty(allowed)[:, None], bias=bias)


def cross_mask(documents_BT: Tensor | None, source_documents_BS: Tensor | None) -> Mask:
    """The mask of attention from a decoder to an encoder's output."""
    if source_documents_BS is None:
        return Mask()
    if documents_BT is None:
        allowed = (source_documents_BS >= 0)[:, None, :]
    else:
        allowed = same_document(documents_BT, source_documents_BS)
    return Mask(allowed=_never_empty(allowed)[:, None])


def same_document(documents_BT: Tensor, documents_BS: Tensor) -> Tensor:
    """True where query and key are of one document and the key is no padding: (B, T, S)."""
    keys = documents_BS[:, None, :]
    return (documents_BT[:, :, None] == keys) & (keys >= 0)


def _never_empty(allowed_BTS: Tensor) -> Tensor:
    """Let a query that would see nothing (padding) see all: never read, it must yet be finite."""
    return allowed_BTS | ~allowed_BTS.any(-1, keepdim=True)
