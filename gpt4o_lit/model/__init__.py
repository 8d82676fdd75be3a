"""The network, from its config to its logits."""

from gpt4o_lit.model.attend import attend, attention_weights
from gpt4o_lit.model.cache import KVCache
from gpt4o_lit.model.config import (
    AttentionConfig,
    FeedForwardConfig,
    NormConfig,
    PositionConfig,
    StackConfig,
    TransformerConfig,
)
from gpt4o_lit.model.count import count_parameters, flops_per_token, training_flops
from gpt4o_lit.model.mask import Mask
from gpt4o_lit.model.token_types import token_types
from gpt4o_lit.model.transformer import Transformer

__all__ = [
    "AttentionConfig",
    "FeedForwardConfig",
    "KVCache",
    "Mask",
    "NormConfig",
    "PositionConfig",
    "StackConfig",
    "Transformer",
    "TransformerConfig",
    "attend",
    "attention_weights",
    "count_parameters",
    "flops_per_token",
    "token_types",
    "training_flops",
]
