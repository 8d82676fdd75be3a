"""Attention that a CPU trains fastest: batched products over blocks that stay in its cache."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gpt4o_lit.model.dropout import survivors
from gpt4o_lit.model.mask import Mask, compute_dtype

# B batch, T query tokens, S key tokens, N heads, H head_dim
# R rows of a block times N, t queries of a block, s keys that they may see

BLOCK_BYTES = 6 << 20
"""Room for the scores of a block: the best of 1 to 12 MiB on two cores of a Zen 4."""
QUERY_BLOCKS = 4
"""Blocks of queries at most. More would skip more of the future, in smaller products."""
SMALLEST_BLOCK = 128
"""Fewer queries than this are never split."""
LONGEST_KEPT = 1024
"""Up to this many keys the weights are kept for the backward; beyond, it makes them again."""


@torch.compiler.disable
def blocked_attention(
    q_BTNH: Tensor, k_BSNH: Tensor, v_BSNH: Tensor, mask: Mask, scale: float, dropout: float
) -> Tensor:
    """As `attend` with a key head for each query head. Differentiable once, in the mask too.

    Raises:
        ValueError: the tensors are not on a CPU.
    """
    if q_BTNH.device.type != "cpu":
        raise ValueError("attention.kernel (blocked) is for CPUs; set it to auto")
    added, dtype = mask.written_out(q_BTNH, k_BSNH), compute_dtype(q_BTNH)
    with torch.autocast("cpu", enabled=False):
        return _BlockedAttention.apply(
            q_BTNH.to(dtype),
            k_BSNH.to(dtype),
            v_BSNH.to(dtype),
            None if added is None else added.to(dtype),
            mask.causal,
            scale,
            dropout,
        )


class _Blocks:
    """Cuts (B, N, T, S) into pieces: some rows, all heads, a run of queries, the keys they see."""

    def __init__(self, q_BTNH: Tensor, keys: int, causal: bool) -> None:
        self.batch, self.length, self.heads, _ = q_BTNH.shape
        self.keys, self.causal = keys, causal
        self.queries = max(SMALLEST_BLOCK, -(-self.length // QUERY_BLOCKS))
        scores = self.heads * min(self.queries, self.length) * keys * q_BTNH.element_size()
        self.rows = max(1, BLOCK_BYTES // scores)

    def __iter__(self) -> Iterator[tuple[slice, slice, slice, slice]]:
        """Rows, rows times heads, queries, keys; of each row the last queries first."""
        for row in range(0, self.batch, self.rows):
            rows = slice(row, min(row + self.rows, self.batch))
            flat = slice(rows.start * self.heads, rows.stop * self.heads)
            for start in reversed(range(0, self.length, self.queries)):
                stop = min(start + self.queries, self.length)
                yield rows, flat, slice(start, stop), slice(0, stop if self.causal else self.keys)


class _BlockedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q_BTNH: Tensor,
        k_BSNH: Tensor,
        v_BSNH: Tensor,
        added: Tensor | None,
        causal: bool,
        scale: float,
        dropout: float,
    ) -> Tensor:
        ctx.blocks = blocks = _Blocks(q_BTNH, k_BSNH.shape[1], causal)
        ctx.scale, ctx.dropout = scale, dropout
        keeps = dropout > 0 or k_BSNH.shape[1] <= LONGEST_KEPT
        q, k, v = _heads_first(q_BTNH), _heads_first(k_BSNH), _heads_first(v_BSNH)
        out = torch.empty_like(q)
        kept: list[Tensor | None] = []
        for rows, flat, queries, keys in blocks:
            weights = _weights(q[flat, queries], k[flat, keys], added, rows, queries, scale)
            dropped, survives = weights, None
            if dropout:
                survives = survivors(weights.shape, dropout)
                dropped = weights * survives.to(weights.dtype).div_(1.0 - dropout)
            out[flat, queries] = dropped @ v[flat, keys]
            kept += [weights, survives] if keeps else [None, None]
        ctx.save_for_backward(q, k, v, added, *kept)
        return _heads_last(out, blocks.heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_BTNH: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, added, *kept = ctx.saved_tensors
        blocks: _Blocks = ctx.blocks
        slope_out = _heads_first(slope_BTNH)
        slope_q, slope_k, slope_v = (torch.empty_like(x) for x in (q, k, v))
        wanted = ctx.needs_input_grad[3]
        slope_added = torch.zeros_like(added, dtype=torch.float32) if wanted else None
        for at, (rows, flat, queries, keys) in enumerate(blocks):
            weights, survives = kept[2 * at : 2 * at + 2]
            if weights is None:
                weights = _weights(q[flat, queries], k[flat, keys], added, rows, queries, ctx.scale)
            dropped, above = weights, slope_out[flat, queries]
            slope = above @ v[flat, keys].mT
            if survives is not None:
                alive = survives.to(weights.dtype).div_(1.0 - ctx.dropout)
                dropped, slope = weights * alive, slope.mul_(alive)
            beta = int(queries.stop < blocks.length)  # 0: a row's first block, with all its keys
            slope_v[flat, keys].baddbmm_(dropped.mT, above, beta=beta)
            slope = torch._softmax_backward_data(slope, weights, -1, weights.dtype)
            if slope_added is not None:
                _add_up(slope_added, slope.unflatten(0, (-1, blocks.heads)), rows, queries, keys)
            slope_q[flat, queries].baddbmm_(slope, k[flat, keys], beta=0, alpha=ctx.scale)
            slope_k[flat, keys].baddbmm_(slope.mT, q[flat, queries], beta=beta, alpha=ctx.scale)
        if slope_added is not None:
            slope_added = slope_added.to(added.dtype)
        slopes = (_heads_last(slope, blocks.heads) for slope in (slope_q, slope_k, slope_v))
        return (*slopes, slope_added, None, None, None)


def _weights(
    q: Tensor, k: Tensor, added: Tensor | None, rows: slice, queries: slice, scale: float
) -> Tensor:
    """The attention weights of a block: (R, t, s)."""
    if added is None:
        scores = torch.bmm(q, k.mT).mul_(scale)
    else:
        within = added if added.shape[0] == 1 else added[rows]
        batch, keys = rows.stop - rows.start, k.shape[1]
        within = within[:, :, queries if added.shape[2] > 1 else slice(None), :keys]
        within = within.expand(batch, q.shape[0] // batch, q.shape[1], keys).flatten(0, 1)
        scores = torch.baddbmm(within, q, k.mT, alpha=scale)
    return torch.softmax(scores, -1, out=scores)


def _add_up(total: Tensor, slope: Tensor, rows: slice, queries: slice, keys: slice) -> None:
    """Add the slope of a block's scores to that of the mask, summed where the mask is shared."""
    part = total[rows] if total.shape[0] > 1 else total
    part = part[:, :, queries if total.shape[2] > 1 else slice(None), keys]
    part += slope.float().sum_to_size(part.shape)


def _heads_first(x_BTNH: Tensor) -> Tensor:
    """(B * N, T, H), contiguous."""
    return x_BTNH.transpose(1, 2).reshape(-1, x_BTNH.shape[1], x_BTNH.shape[3])


def _heads_last(x: Tensor, heads: int) -> Tensor:
    """(B, T, N, H), a view."""
    return x.unflatten(0, (-1, heads)).transpose(1, 2)
