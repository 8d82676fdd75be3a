"""One layer of a stack."""

from torch import Tensor, nn

from gpt4o_lit.model.attention import Angles, Attention, CrossAttention
from gpt4o_lit.model.cache import KVCache
from gpt4o_lit.model.config import StackConfig
from gpt4o_lit.model.dropout import Dropout
from gpt4o_lit.model.feed_forward import make_feed_forward
from gpt4o_lit.model.mask import Mask
from gpt4o_lit.model.norm import make_norm

# B batch, T target tokens, S source tokens, D dim


class Block(nn.Module):
    """Self-attention, cross-attention behind an encoder, feed-forward; each with a residual sum."""

    def __init__(self, stack: StackConfig, layer: int, cross: bool) -> None:
        super().__init__()
        self.pre = stack.norm.placement == "pre"
        self.attention_norm = make_norm(stack.dim, stack.norm)
        self.attention = Attention(stack, layer)
        self.cross_attention_norm = make_norm(stack.dim, stack.norm) if cross else None
        self.cross_attention = CrossAttention(stack, layer) if cross else None
        self.ffn_norm = make_norm(stack.dim, stack.norm)
        self.feed_forward = make_feed_forward(stack)
        self.dropout = Dropout(stack.dropout)

    def forward(
        self,
        x_BTD: Tensor,
        mask: Mask,
        angles: Angles | None = None,
        memory_BSD: Tensor | None = None,
        memory_mask: Mask | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        if self.pre:
            x_BTD = x_BTD + self.dropout(
                self.attention(self.attention_norm(x_BTD), mask, angles, cache)
            )
            if self.cross_attention is not None:
                assert memory_mask is not None
                assert self.cross_attention_norm is not None
                normed = self.cross_attention_norm(x_BTD)
                x_BTD = x_BTD + self.dropout(
                    self.cross_attention(normed, memory_mask, memory_BSD, cache)
                )
            return x_BTD + self.dropout(self.feed_forward(self.ffn_norm(x_BTD)))
        x_BTD = self.attention_norm(
            x_BTD + self.dropout(self.attention(x_BTD, mask, angles, cache))
        )
        if self.cross_attention is not None:
            assert memory_mask is not None
            assert self.cross_attention_norm is not None
            mixed = self.cross_attention(x_BTD, memory_mask, memory_BSD, cache)
            x_BTD = self.cross_attention_norm(x_BTD + self.dropout(mixed))
        return self.ffn_norm(x_BTD + self.dropout(self.feed_forward(x_BTD)))
