"""From hidden states to a score for each piece of the vocabulary, or for each class."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt4o_lit.model.config import TransformerConfig
from gpt4o_lit.model.linear import Embedding, HasMatrix, Linear, linear
from gpt4o_lit.model.norm import make_norm

# B batch, T tokens, D dim, V vocab


class Head(nn.Module, HasMatrix):
    """The output matrix, its own or the token vectors', and what some models put around it."""

    def __init__(self, config: TransformerConfig, tokens: Embedding) -> None:
        super().__init__()
        stack = config.output_stack
        self.scale, self.softcap = config.head_scale, config.logit_softcap
        self.transform = Linear(config.dim, config.dim) if config.head_transform else None
        self.norm = make_norm(config.dim, stack.norm) if config.head_transform else None
        self.weight = (
            tokens.weight
            if config.ties_head
            else nn.Parameter(torch.empty(config.num_outputs, config.dim))
        )
        has_bias = config.head_bias or config.num_classes is not None
        self.bias = nn.Parameter(torch.zeros(config.num_outputs)) if has_bias else None

    def features(self, hidden_BTD: Tensor) -> Tensor:
        """What the output matrix is applied to: transformed and scaled hidden states."""
        if self.transform is not None and self.norm is not None:
            hidden_BTD = self.norm(F.gelu(self.transform(hidden_BTD)))
        if self.scale is not None:
            hidden_BTD = hidden_BTD * self.scale
        return hidden_BTD if self.fake is None else self.fake.inputs(hidden_BTD)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """Logits of shape (B, T, V)."""
        weight = self.weight if self.fake is None else self.matrix()
        logits_BTV = linear(self.features(hidden_BTD), weight, self.bias, self.packed)
        if self.softcap is not None:
            logits_BTV = self.softcap * torch.tanh(logits_BTV / self.softcap)
        return logits_BTV
