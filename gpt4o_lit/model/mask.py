"""Who sees whom, worked out once for all layers of a stack."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

# B batch, T query tokens, S key tokens, N heads


@dataclass(frozen=True)
class Mask:
    """What attention needs to know beside queries, keys and values."""

    causal: bool = False
    """No query of a document sees a later key: kernels may leave out what lies ahead."""
    added: Tensor | None = None
    """Added to the scores, -inf where a query does not see a key: (B or 1, N or 1, T, S).
    None: each query sees all keys, or with `causal` its own and the earlier ones."""
    blocks: BlockMask | None = None
    """For FlexAttention alone, which leaves out blocks that nobody sees: it says who sees whom, and
    `added` holds the bias alone."""

    def written_out(self, q_BTNH: Tensor, k_BSKH: Tensor) -> Tensor | None:
        """`added`, and for a plain causal mask what it stands for: (1, 1, T, S)."""
        assert self.blocks is None, "a mask of blocks is for FlexAttention"
        if self.added is not None or not self.causal:
            return self.added
        ahead = q_BTNH.new_full((1, 1, q_BTNH.shape[1], k_BSKH.shape[1]), float("-inf"))
        return ahead.triu_(1)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix products of x: autocast's where it is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def without_lone_documents(documents_BT: Tensor | None) -> Tensor | None:
    """None where each row is one document, so that no mask is needed.

    On a CPU alone: elsewhere a look at the values would wait for the device.
    """
    if documents_BT is None or documents_BT.device.type != "cpu" or torch.compiler.is_compiling():
        return documents_BT
    one_each = (documents_BT == documents_BT[:, :1]).all() and (documents_BT[:, 0] >= 0).all()
    return None if one_each else documents_BT


def self_mask(
    places_BT: Tensor,
    places_BS: Tensor,
    *,
    causal: bool,
    dtype: torch.dtype,
    window: int | None = None,
    documents_BT: Tensor | None = None,
    prefix_BT: Tensor | None = None,
    bias: Tensor | None = None,
) -> Mask:
    """The mask of self-attention for queries and keys at these places of their rows (B may be 1).

    Nobody sees a key at a negative place: a slot of a cache that holds nothing yet. Documents and
    prefix are those of the keys too, so they go without a cache.
    """
    plain = documents_BT is None and prefix_BT is None
    plain = plain and (window is None or window >= places_BS.shape[-1])
    whole = places_BT is places_BS
    if plain and whole and not (causal and bias is not None):
        return Mask(causal=causal, added=None if bias is None else bias.to(dtype))
    distance = places_BT[:, :, None] - places_BS[:, None, :]
    allowed = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    if places_BS is not places_BT:
        allowed = allowed & (places_BS >= 0)[:, None, :]
    if prefix_BT is not None:
        allowed = allowed | prefix_BT[:, None, :]
    if window is not None:
        allowed = allowed & (distance.abs() < window)
    if documents_BT is not None:
        allowed = allowed & same_document(documents_BT, documents_BT)
    return Mask(causal=causal and whole and prefix_BT is None, added=_added(allowed, dtype, bias))


def flex_mask(
    length: int,
    device: torch.device,
    *,
    causal: bool,
    window: int | None = None,
    documents_BT: Tensor | None = None,
    prefix_BT: Tensor | None = None,
    bias: Tensor | None = None,
) -> Mask:
    """`self_mask` of whole rows for FlexAttention, where a query that sees nothing gives zeros."""

    def sees(b: Tensor, n: Tensor, t: Tensor, s: Tensor) -> Tensor:
        seen = t >= s if causal else t >= 0
        if prefix_BT is not None:
            seen = seen | prefix_BT[b, s]
        if window is not None:
            seen = seen & ((t - s).abs() < window)
        if documents_BT is not None:
            seen = seen & (documents_BT[b, t] == documents_BT[b, s]) & (documents_BT[b, s] >= 0)
        return seen

    rows = next((len(x) for x in (documents_BT, prefix_BT) if x is not None), None)
    return Mask(added=bias, blocks=create_block_mask(sees, rows, None, length, length, device))


def cross_mask(
    documents_BT: Tensor | None, source_documents_BS: Tensor | None, dtype: torch.dtype
) -> Mask:
    """The mask of attention from a decoder to an encoder's output."""
    if source_documents_BS is None:
        return Mask()
    if documents_BT is None:
        allowed = (source_documents_BS >= 0)[:, None, :]
    else:
        allowed = same_document(documents_BT, source_documents_BS)
    return Mask(added=_added(allowed, dtype))


def same_document(documents_BT: Tensor, documents_BS: Tensor) -> Tensor:
    """True where query and key are of one document and the key is no padding: (B, T, S)."""
    keys = documents_BS[:, None, :]
    return (documents_BT[:, :, None] == keys) & (keys >= 0)


def _added(allowed_BTS: Tensor, dtype: torch.dtype, bias: Tensor | None = None) -> Tensor:
    """The bias (or 0) where a query sees a key, else -inf.

    A query that would see nothing (padding) sees all: it is never read, yet must be finite.
    """
    hidden_B1TS = ~(allowed_BTS | ~allowed_BTS.any(-1, keepdim=True))[:, None]
    if bias is None:
        bias = torch.zeros((), dtype=dtype, device=allowed_BTS.device).expand(hidden_B1TS.shape)
    return bias.to(dtype).masked_fill(hidden_B1TS, float("-inf"))
