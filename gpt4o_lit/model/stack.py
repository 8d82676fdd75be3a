"""A pile of blocks: an encoder or a decoder."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gpt4o_lit.model.block import Block
from gpt4o_lit.model.cache import KVCache
from gpt4o_lit.model.config import StackConfig
from gpt4o_lit.model.dropout import Dropout
from gpt4o_lit.model.mask import Mask, compute_dtype, flex_mask, self_mask, without_lone_documents
from gpt4o_lit.model.norm import make_norm
from gpt4o_lit.model.position import (
    AlibiBias,
    RelativeBias,
    Rotary,
    positions_in_documents,
    sinusoids,
)

# B batch, T target tokens, S source tokens, D dim


class Stack(nn.Module):
    """Embedded tokens in, hidden states out.

    Args:
        config: What the stack is made of.
        causal: Tokens see their past alone (decoder) or both directions (encoder).
        cross: Blocks attend to an encoder's output too.
        max_seq_len: Rows of learned positions.
    """

    def __init__(self, config: StackConfig, *, causal: bool, cross: bool, max_seq_len: int) -> None:
        super().__init__()
        self.config, self.causal = config, causal
        kind, heads = config.position.kind, config.attention.num_heads
        self.positions = nn.Embedding(max_seq_len, config.dim) if kind == "learned" else None
        self.rotary = Rotary(config.position, config.head_dim) if kind == "rotary" else None
        self.bias: RelativeBias | AlibiBias | None = None
        if kind == "relative":
            self.bias = RelativeBias(config.position, heads, causal)
        elif kind == "alibi":
            self.bias = AlibiBias(heads)
        types = config.num_token_types
        self.token_types = nn.Embedding(types, config.dim) if types else None
        self.embedding_norm = make_norm(config.dim, config.norm) if config.embedding_norm else None
        self.embedding_dropout = Dropout(config.embedding_dropout)
        self.blocks = nn.ModuleList(
            Block(config, layer, cross) for layer in range(config.num_layers)
        )
        self.norm = make_norm(config.dim, config.norm) if config.has_final_norm else None

    def forward(
        self,
        x_BTD: Tensor,
        documents_BT: Tensor | None = None,
        prefix_BT: Tensor | None = None,
        memory_BSD: Tensor | None = None,
        memory_mask: Mask | None = None,
        cache: KVCache | None = None,
        types_BT: Tensor | None = None,
    ) -> Tensor:
        """Hidden states of shape (B, T, D); with a cache the tokens go on behind those in it."""
        documents_BT = without_lone_documents(documents_BT)
        places_BT, positions_BT = self._places(x_BTD, documents_BT, cache)
        x_BTD = self._embed(x_BTD, positions_BT, types_BT)
        mask = self._mask(places_BT, compute_dtype(x_BTD), documents_BT, prefix_BT, cache)
        angles = None if self.rotary is None else self.rotary(positions_BT)
        for block in self.blocks:
            inputs = (x_BTD, mask, angles, memory_BSD, memory_mask, cache)
            if self.config.checkpointing and self.training:
                x_BTD = checkpoint(block, *inputs, use_reentrant=False)
            else:
                x_BTD = block(*inputs)
        return x_BTD if self.norm is None else self.norm(x_BTD)

    def _places(
        self, x_BTD: Tensor, documents_BT: Tensor | None, cache: KVCache | None
    ) -> tuple[Tensor, Tensor]:
        """Places in the row and positions in the document, (B, T) or (1, T) each."""
        if cache is not None:
            places_BT = cache.places(x_BTD.shape[1])
            return places_BT, places_BT
        places_BT = torch.arange(x_BTD.shape[1], device=x_BTD.device)[None]
        if documents_BT is None:
            return places_BT, places_BT
        return places_BT, positions_in_documents(documents_BT)

    def _embed(self, x_BTD: Tensor, positions_BT: Tensor, types_BT: Tensor | None = None) -> Tensor:
        if self.config.scale_embedding:
            x_BTD = x_BTD * self.config.dim**0.5
        if self.token_types is not None:
            first = types_BT is None
            x_BTD = x_BTD + (self.token_types.weight[0] if first else self.token_types(types_BT))
        if self.positions is not None:
            x_BTD = x_BTD + self.positions(positions_BT)
        elif self.config.position.kind == "sinusoidal":
            waves = sinusoids(positions_BT, self.config.dim, self.config.position.theta)
            x_BTD = x_BTD + waves.to(x_BTD.dtype)
        if self.embedding_norm is not None:
            x_BTD = self.embedding_norm(x_BTD)
        return self.embedding_dropout(x_BTD)

    def _mask(
        self,
        places_BT: Tensor,
        dtype: torch.dtype,
        documents_BT: Tensor | None,
        prefix_BT: Tensor | None,
        cache: KVCache | None,
    ) -> Mask:
        places_BS, window = places_BT, self.config.attention.window
        if cache is not None:
            documents_BT = None  # a row of a cache is one document
            if cache.used:
                places_BS = cache.places_kept(places_BT.shape[1])
        bias = None
        if self.bias is not None:
            bias = self.bias(places_BS[:, None, :] - places_BT[:, :, None])
        lone = cache is not None and not cache.ragged and places_BT.shape[1] == 1
        if lone and (window is None or window >= places_BS.shape[1]):
            return Mask(added=None if bias is None else bias.to(dtype))
        if self.config.attention.kernel == "flex" and cache is None:
            return flex_mask(
                places_BT.shape[1],
                places_BT.device,
                causal=self.causal,
                window=window,
                documents_BT=documents_BT,
                prefix_BT=prefix_BT,
                bias=None if bias is None else bias.to(dtype),
            )
        return self_mask(
            places_BT,
            places_BS,
            causal=self.causal,
            dtype=dtype,
            window=window,
            documents_BT=documents_BT,
            prefix_BT=prefix_BT,
            bias=bias,
        )
