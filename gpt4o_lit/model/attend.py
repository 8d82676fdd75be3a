"""softmax(QK^T / sqrt(d)) V, over three kernels that agree."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from gpt4o_lit.model.config import Kernel
from gpt4o_lit.model.mask import Mask

# B batch, T query tokens, S key tokens, N query heads, K key heads, H head_dim


def attend(
    q_BTNH: Tensor,
    k_BSKH: Tensor,
    v_BSKH: Tensor,
    mask: Mask,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
    kernel: Kernel = "sdpa",
) -> Tensor:
    """Each query's mean of the values, weighted by softmax(QK^T * scale + bias): (B, T, N, H).

    Query heads share key heads in groups of N / K (arXiv:2305.13245). Default scale: 1 / sqrt(H).

    Raises:
        ValueError: kernel flex is to train on a CPU, for which PyTorch has no backward.
    """
    if kernel == "eager":
        weights_BNTS = attention_weights(q_BTNH, k_BSKH, mask, scale=scale)
        weights_BNTS = F.dropout(weights_BNTS, dropout)
        values = _spread(v_BSKH, q_BTNH.shape[2])
        return torch.einsum("bnts,bsnh->btnh", weights_BNTS.to(values.dtype), values)
    q, k, v = q_BTNH.transpose(1, 2), k_BSKH.transpose(1, 2), v_BSKH.transpose(1, 2)
    if kernel == "flex":
        return _flex(q, k, v, mask, scale).transpose(1, 2)
    out = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=_additive(mask, q.dtype),
        dropout_p=dropout,
        is_causal=mask.causal and mask.bias is None,
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out.transpose(1, 2)


def attention_weights(
    q_BTNH: Tensor, k_BSKH: Tensor, mask: Mask, *, scale: float | None = None
) -> Tensor:
    """softmax(QK^T * scale + bias) itself, in float32: (B, N, T, S)."""
    scale = q_BTNH.shape[-1] ** -0.5 if scale is None else scale
    keys = _spread(k_BSKH, q_BTNH.shape[2])
    scores = torch.einsum("btnh,bsnh->bnts", q_BTNH, keys).float() * scale
    if mask.bias is not None:
        scores = scores + mask.bias
    allowed = _allowed(mask, scores.shape[-2], scores.shape[-1], scores.device)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, float("-inf"))
    return scores.softmax(-1)


def _spread(x_BSKH: Tensor, num_heads: int) -> Tensor:
    """Repeat each key head for the query heads of its group."""
    group = num_heads // x_BSKH.shape[2]
    return x_BSKH if group == 1 else x_BSKH.repeat_interleave(group, dim=2)


def _allowed(mask: Mask, length: int, keys: int, device: torch.device) -> Tensor | None:
    if mask.causal:
        return torch.ones(length, keys, dtype=torch.bool, device=device).tril()
    return mask.allowed


def _additive(mask: Mask, dtype: torch.dtype) -> Tensor | None:
    """Mask and bias as one tensor, or the plain mask where there is no bias."""
    if mask.bias is None:
        return mask.allowed
    bias = mask.bias.to(dtype)
    allowed = _allowed(mask, bias.shape[-2], bias.shape[-1], bias.device)
    return bias if allowed is None else bias.masked_fill(~allowed, float("-inf"))


def _flex(q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float | None) -> Tensor:
    if q.device.type == "cpu" and torch.is_grad_enabled() and q.requires_grad:
        raise ValueError("attention.kernel (flex) cannot train on a CPU; set it to sdpa or eager")
    allowed = _allowed(mask, q.shape[-2], k.shape[-2], q.device)
    bias = mask.bias

    def score(value: Tensor, b: Tensor, n: Tensor, t: Tensor, s: Tensor) -> Tensor:
        if bias is not None:
            value = value + bias.expand(q.shape[0], -1, -1, -1)[b, n, t, s]
        if allowed is not None:
            visible = allowed.expand(q.shape[0], 1, *allowed.shape[-2:])[b, 0, t, s]
            value = torch.where(visible, value, float("-inf"))
        return value

    grouped = q.shape[1] != k.shape[1]
    return flex_attention(q, k, v, score_mod=score, scale=scale, enable_gqa=grouped)
