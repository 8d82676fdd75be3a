"""Multi-head attention: self and cross, grouped, with what keeps its own cache."""

from torch import Tensor, nn

from gpt4o_lit.model.attend import attend
from gpt4o_lit.model.cache import KVCache
from gpt4o_lit.model.config import StackConfig
from gpt4o_lit.model.linear import Linear
from gpt4o_lit.model.mask import Mask
from gpt4o_lit.model.norm import RMSNorm
from gpt4o_lit.model.position import rotate

# B batch, T target tokens, S source tokens, D dim, N query heads, K key heads, H head_dim

Angles = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """Queries, keys and values of one sequence in one product (arXiv:1706.03762)."""

    def __init__(self, stack: StackConfig, layer: int) -> None:
        super().__init__()
        config = stack.attention
        self.layer, self.config = layer, config
        self.head_dim, self.num_heads, self.num_kv_heads = (
            stack.head_dim,
            config.num_heads,
            config.kv_heads,
        )
        self.sizes = [self.num_heads, self.num_kv_heads, self.num_kv_heads]
        width, inner = sum(self.sizes) * self.head_dim, self.num_heads * self.head_dim
        self.qkv = Linear(stack.dim, width, bias=config.qkv_bias)
        rows = tuple(heads * self.head_dim for heads in self.sizes)
        self.qkv.row_parts = rows  # type: ignore[assignment]  # Muon takes them one by one
        self.output = Linear(inner, stack.dim, bias=config.output_bias)
        self.q_norm = RMSNorm(self.head_dim, stack.norm.eps) if config.qk_norm else None
        self.k_norm = RMSNorm(self.head_dim, stack.norm.eps) if config.qk_norm else None

    def forward(
        self, x_BTD: Tensor, mask: Mask, angles: Angles | None, cache: KVCache | None
    ) -> Tensor:
        q_BTNH, k_BTKH, v_BTKH = self.queries_keys_values(x_BTD, angles)
        if cache is not None:
            k_BTKH, v_BTKH = cache.write(self.layer, k_BTKH, v_BTKH)
        out_BTNH = attend(
            q_BTNH,
            k_BTKH.to(q_BTNH.dtype),
            v_BTKH.to(q_BTNH.dtype),
            mask,
            scale=self.config.scale,
            dropout=self.config.dropout if self.training else 0.0,
            kernel=self.config.kernel,
        )
        return self.output(out_BTNH.flatten(2))

    def queries_keys_values(
        self, x_BTD: Tensor, angles: Angles | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """By head, normalized and turned as the config says: (B, T, N, H), twice (B, T, K, H)."""
        heads = self.qkv(x_BTD).unflatten(-1, (-1, self.head_dim))
        q_BTNH, k_BTKH, v_BTKH = heads.split(self.sizes, dim=2)
        if self.q_norm is not None and self.k_norm is not None:
            q_BTNH, k_BTKH = self.q_norm(q_BTNH), self.k_norm(k_BTKH)
        if angles is not None:
            q_BTNH, k_BTKH = rotate(q_BTNH, *angles), rotate(k_BTKH, *angles)
        return q_BTNH, k_BTKH, v_BTKH


class CrossAttention(nn.Module):
    """Queries of the decoder, keys and values of the encoder's output; no positions."""

    def __init__(self, stack: StackConfig, layer: int) -> None:
        super().__init__()
        config = stack.attention
        self.layer, self.config, self.head_dim = layer, config, stack.head_dim
        inner, rows = config.num_heads * self.head_dim, config.kv_heads * self.head_dim
        self.q = Linear(stack.dim, inner, bias=config.qkv_bias)
        self.kv = Linear(stack.dim, 2 * rows, bias=config.qkv_bias)
        self.kv.row_parts = (rows, rows)  # type: ignore[assignment]  # Muon takes them one by one
        self.output = Linear(inner, stack.dim, bias=config.output_bias)
        self.q_norm = RMSNorm(self.head_dim, stack.norm.eps) if config.qk_norm else None
        self.k_norm = RMSNorm(self.head_dim, stack.norm.eps) if config.qk_norm else None

    def forward(
        self, x_BTD: Tensor, mask: Mask, memory_BSD: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        q_BTNH = self.queries(x_BTD)
        k_BSKH, v_BSKH = self.keys_values(memory_BSD, cache)
        out_BTNH = attend(
            q_BTNH,
            k_BSKH.to(q_BTNH.dtype),
            v_BSKH.to(q_BTNH.dtype),
            mask,
            scale=self.config.scale,
            dropout=self.config.dropout if self.training else 0.0,
            kernel=self.config.kernel,
        )
        return self.output(out_BTNH.flatten(2))

    def queries(self, x_BTD: Tensor) -> Tensor:
        """By head, normalized where the config says so: (B, T, N, H)."""
        q_BTNH: Tensor = self.q(x_BTD).unflatten(-1, (-1, self.head_dim))
        return q_BTNH if self.q_norm is None else self.q_norm(q_BTNH)

    def keys_values(
        self, memory_BSD: Tensor | None, cache: KVCache | None
    ) -> tuple[Tensor, Tensor]:
        """Worked out once per source: later steps take them from the cache."""
        if cache is not None and len(cache.cross) > self.layer:
            return cache.cross[self.layer]
        assert memory_BSD is not None, "without a cached source there must be one"
        k_BSKH, v_BSKH = self.kv(memory_BSD).unflatten(-1, (-1, self.head_dim)).chunk(2, dim=2)
        if self.k_norm is not None:
            k_BSKH = self.k_norm(k_BSKH)
        if cache is not None:
            cache.cross.append((k_BSKH, v_BSKH))
        return k_BSKH, v_BSKH
