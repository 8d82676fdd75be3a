"""The part of a block that works on each token alone."""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from gpt4o_lit.model.config import StackConfig
from gpt4o_lit.model.dropout import Dropout
from gpt4o_lit.model.linear import Linear

# B batch, T tokens, D dim, F ffn_dim

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "swiglu": F.silu,
    "geglu": F.gelu,
    "geglu_tanh": partial(F.gelu, approximate="tanh"),
}


class FeedForward(nn.Module):
    """Widen, activate, narrow (arXiv:1706.03762)."""

    def __init__(self, stack: StackConfig) -> None:
        super().__init__()
        config = stack.feed_forward
        self.activation = ACTIVATIONS[config.activation]
        self.up = Linear(stack.dim, stack.ffn_dim, bias=config.bias)
        self.down = Linear(stack.ffn_dim, stack.dim, bias=config.bias)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(self.dropout(self.activation(self.up(x_BTD))))


class GatedFeedForward(nn.Module):
    """Widen twice, let one half gate the other, narrow (arXiv:2002.05202)."""

    def __init__(self, stack: StackConfig) -> None:
        super().__init__()
        config = stack.feed_forward
        self.activation = ACTIVATIONS[config.activation]
        self.gate_up = Linear(stack.dim, 2 * stack.ffn_dim, bias=config.bias)
        rows = (stack.ffn_dim, stack.ffn_dim)
        self.gate_up.row_parts = rows  # type: ignore[assignment]  # Muon takes them one by one
        self.down = Linear(stack.ffn_dim, stack.dim, bias=config.bias)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        gate_BTF, up_BTF = self.gate_up(x_BTD).chunk(2, dim=-1)
        inner_BTF = self.activation(gate_BTF)
        # Without gradients nobody asks for it again, and fresh memory is slow.
        inner_BTF = inner_BTF * up_BTF if inner_BTF.requires_grad else inner_BTF.mul_(up_BTF)
        return self.down(self.dropout(inner_BTF))


def make_feed_forward(stack: StackConfig) -> FeedForward | GatedFeedForward:
    """The feed-forward part that a config asks for."""
    return (GatedFeedForward if stack.feed_forward.gated else FeedForward)(stack)
