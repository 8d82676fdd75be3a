"""softmax(QK^T / sqrt(d)) V, over four kernels that agree."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from gpt4o_lit.model.blocked import blocked_attention
from gpt4o_lit.model.config import Kernel
from gpt4o_lit.model.dropout import dropout as drop
from gpt4o_lit.model.mask import Mask
from gpt4o_lit.model.sums import made_once, streams

# B batch, T query tokens, S key tokens, N query heads, K key heads, H head_dim


def attend(
    q_BTNH: Tensor,
    k_BSKH: Tensor,
    v_BSKH: Tensor,
    mask: Mask,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
    kernel: Kernel = "auto",
) -> Tensor:
    """Each query's mean of the values, weighted by softmax(QK^T * scale + bias): (B, T, N, H).

    Query heads share key heads in groups of N / K (arXiv:2305.13245). Default scale: 1 / sqrt(H).

    Raises:
        ValueError: kernel flex is to train on a CPU, for which PyTorch has no backward, or blocked
            is to work elsewhere.
    """
    scale = q_BTNH.shape[-1] ** -0.5 if scale is None else scale
    one = torch.compiler.is_dynamo_compiling() and q_BTNH.shape[1] == 1 and streams(q_BTNH)
    if kernel == "auto" and one:
        return _one_query(q_BTNH, k_BSKH, v_BSKH, mask, scale)
    if kernel == "auto":
        trains = torch.is_grad_enabled() and q_BTNH.requires_grad
        kernel = "blocked" if trains and q_BTNH.device.type == "cpu" else "sdpa"
    if kernel == "eager":
        weights_BNTS = attention_weights(q_BTNH, k_BSKH, mask, scale=scale)
        if dropout:
            weights_BNTS = drop(weights_BNTS, dropout)
        values = _spread(v_BSKH, q_BTNH.shape[2])
        return torch.einsum("bnts,bsnh->btnh", weights_BNTS.to(values.dtype), values)
    if kernel == "blocked":
        keys, values = (_spread(x, q_BTNH.shape[2]) for x in (k_BSKH, v_BSKH))
        return blocked_attention(q_BTNH, keys, values, mask, scale, dropout)
    if kernel == "flex":
        return _flex(q_BTNH, k_BSKH, v_BSKH, mask, scale)
    out = F.scaled_dot_product_attention(
        q_BTNH.transpose(1, 2),
        k_BSKH.transpose(1, 2),
        v_BSKH.transpose(1, 2),
        attn_mask=mask.added,
        dropout_p=dropout,
        is_causal=mask.causal and mask.added is None,
        scale=scale,
        enable_gqa=q_BTNH.shape[2] != k_BSKH.shape[2],
    )
    return out.transpose(1, 2)


def attention_weights(
    q_BTNH: Tensor, k_BSKH: Tensor, mask: Mask, *, scale: float | None = None
) -> Tensor:
    """softmax(QK^T * scale + bias) itself, in float32: (B, N, T, S)."""
    scale = q_BTNH.shape[-1] ** -0.5 if scale is None else scale
    keys = _spread(k_BSKH, q_BTNH.shape[2])
    scores = torch.einsum("btnh,bsnh->bnts", q_BTNH, keys).float() * scale
    added = mask.written_out(q_BTNH, k_BSKH)
    return (scores if added is None else scores + added).softmax(-1)


def _one_query(q_B1NH: Tensor, k_BSKH: Tensor, v_BSKH: Tensor, mask: Mask, scale: float) -> Tensor:
    """Attention of a compiled step of writing: sums that read keys and values as they lie."""
    batch, places, heads, _ = k_BSKH.shape
    q_B1KGH = made_once(q_B1NH).float().unflatten(2, (heads, -1))
    scores_BSKG = (q_B1KGH * k_BSKH[:, :, :, None].float()).sum(-1) * scale
    added = mask.written_out(q_B1NH, k_BSKH)
    if added is not None:
        added = added.expand(batch, q_B1NH.shape[2], 1, places)
        scores_BSKG = scores_BSKG + added[:, :, 0].transpose(1, 2).unflatten(2, (heads, -1))
    weights_BSKG = scores_BSKG.softmax(1)
    out_BKGH = (weights_BSKG[..., None] * v_BSKH[:, :, :, None].float()).sum(1)
    return out_BKGH.flatten(1, 2)[:, None].to(q_B1NH.dtype)


def _spread(x_BSKH: Tensor, num_heads: int) -> Tensor:
    """Repeat each key head for the query heads of its group."""
    group = num_heads // x_BSKH.shape[2]
    return x_BSKH if group == 1 else x_BSKH.repeat_interleave(group, dim=2)


def _flex(q_BTNH: Tensor, k_BSKH: Tensor, v_BSKH: Tensor, mask: Mask, scale: float) -> Tensor:
    if q_BTNH.device.type == "cpu" and torch.is_grad_enabled() and q_BTNH.requires_grad:
        raise ValueError("attention.kernel (flex) cannot train on a CPU; set it to auto or eager")
    added = mask.added if mask.blocks is not None else mask.written_out(q_BTNH, k_BSKH)
    batch, length, heads, _ = q_BTNH.shape

    def score(value: Tensor, b: Tensor, n: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return value if added is None else value + shared[b, n, t, s]

    if added is not None:
        shared = added.expand(batch, heads, length, k_BSKH.shape[1])
    out = flex_attention(
        q_BTNH.transpose(1, 2),
        k_BSKH.transpose(1, 2),
        v_BSKH.transpose(1, 2),
        score_mod=score,
        block_mask=mask.blocks,
        scale=scale,
        enable_gqa=heads != k_BSKH.shape[2],
    )
    return out.transpose(1, 2)
