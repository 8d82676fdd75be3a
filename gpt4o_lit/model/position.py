"""How a stack knows the order of tokens: vectors added, features turned, or scores shifted."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from gpt4o_lit.model.config import PositionConfig

# B batch, T query tokens, S key tokens, N heads, H head_dim, D dim


def positions_in_documents(documents_BT: Tensor) -> Tensor:
    """Place of each token in its document: (B, T), counted from 0 where a new id begins."""
    place_T = torch.arange(documents_BT.shape[1], device=documents_BT.device)
    begins_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    begins_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    return place_T - torch.where(begins_BT, place_T, 0).cummax(1).values


def inverse_frequencies(config: PositionConfig, head_dim: int) -> Tensor:
    """Angle per place of each pair of features: (H/2,), stretched as the config says.

    Rotary positions are arXiv:2104.09864; the llama3 scaling is that of Llama 3.1.
    """
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    frequencies = config.theta**-exponent
    if config.scaling == "linear":
        return frequencies / config.scaling_factor
    if config.scaling == "llama3":
        turns = config.original_max_seq_len * frequencies / (2 * math.pi)
        low, high = config.low_freq_factor, config.high_freq_factor
        share = ((turns - low) / (high - low)).clamp(0, 1)
        return frequencies * (share + (1 - share) / config.scaling_factor)
    return frequencies


class FixedTable(nn.Module):
    """Numbers in float32 that follow from the config and move with the module.

    `module.bfloat16()` and its like round every floating-point buffer, so these are kept as bits.
    """

    bits: Tensor

    def __init__(self, make: Callable[[], Tensor]) -> None:
        super().__init__()
        self.make = make
        self.register_buffer("bits", make().view(torch.int32), persistent=False)

    @property
    def values(self) -> Tensor:
        """The numbers, on the module's device."""
        return self.bits if self.bits.is_floating_point() else self.bits.view(torch.float32)

    def reset_buffers(self) -> None:
        """Fill the buffer again after it was moved off the meta device."""
        self.bits.copy_(self.make().view(torch.int32))


class Rotary(FixedTable):
    """The angles of rotary positions."""

    def __init__(self, config: PositionConfig, head_dim: int) -> None:
        super().__init__(partial(inverse_frequencies, config, head_dim))

    def forward(self, positions_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of each pair's angle: two of (B, T, 1, H/2), in float32."""
        angles = positions_BT[..., None, None].float() * self.values
        return angles.cos(), angles.sin()


def rotate(x_BTNH: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn feature i with feature i + H/2 by their angle (RoPE, arXiv:2104.09864)."""
    first, second = x_BTNH.float().chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x_BTNH.dtype)


def sinusoids(positions_BT: Tensor, dim: int, theta: float) -> Tensor:
    """Sines in the first half of features, cosines in the second (arXiv:1706.03762): (B, T, D)."""
    exponent = torch.arange(0, dim, 2, dtype=torch.float64, device=positions_BT.device) / dim
    angles = positions_BT[..., None].double() * theta**-exponent
    return torch.cat((angles.sin(), angles.cos()), dim=-1).float()


def alibi_slopes(num_heads: int) -> Tensor:
    """How much each head dislikes distance (ALiBi, arXiv:2108.12409): (N,)."""
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    slopes += [2 ** (-4 * (2 * i + 1) / power) for i in range(num_heads - power)]
    return torch.tensor(slopes, dtype=torch.float32)


class RelativeBias(nn.Embedding):
    """A learned number per head and bucket of distance (T5, arXiv:1910.10683)."""

    def __init__(self, config: PositionConfig, num_heads: int, causal: bool) -> None:
        super().__init__(config.num_buckets, num_heads)
        self.config, self.causal = config, causal

    def forward(self, distance: Tensor) -> Tensor:
        """Bias for key place minus query place: (..., T, S) to (..., N, T, S)."""
        return super().forward(self._bucket(distance)).movedim(-1, -3)

    def _bucket(self, distance: Tensor) -> Tensor:
        """Half of the buckets for near distances one by one, half for far ones by logarithm."""
        buckets, offset = self.config.num_buckets, torch.zeros_like(distance)
        if self.causal:
            distance = (-distance).clamp(min=0)
        else:
            buckets //= 2
            offset = (distance > 0) * buckets
            distance = distance.abs()
        near = buckets // 2
        ratio = torch.log(distance.float().clamp(min=1) / near)
        far = near + (ratio / math.log(self.config.max_distance / near) * (buckets - near)).long()
        return offset + torch.where(distance < near, distance, far.clamp(max=buckets - 1))


class AlibiBias(FixedTable):
    """A fixed penalty that grows with distance (ALiBi, arXiv:2108.12409)."""

    def __init__(self, num_heads: int) -> None:
        super().__init__(partial(alibi_slopes, num_heads))

    def forward(self, distance: Tensor) -> Tensor:
        """Bias for key place minus query place: (..., T, S) to (..., N, T, S)."""
        return -distance.abs()[..., None, :, :] * self.values[:, None, None]
