"""The first weights of a network."""

import torch
from torch import nn

from gpt4o_lit.model.norm import LayerNorm, RMSNorm
from gpt4o_lit.model.position import FixedTable
from gpt4o_lit.model.stack import Stack


@torch.no_grad()
def initialize_(module: nn.Module, std: float) -> None:
    """Fill every weight: normal with `std`, biases zero, norms one.

    What writes into the residual stream is smaller by sqrt(2 * num_layers), as in GPT-2, so that
    the sum over layers keeps its size.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=std)
        elif isinstance(part, RMSNorm | LayerNorm):
            nn.init.ones_(part.weight)
            if isinstance(part, LayerNorm) and part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, FixedTable):
            part.reset_buffers()
    for stack in module.modules():
        if isinstance(stack, Stack):
            for name, weight in stack.named_parameters():
                if name.endswith(("output.weight", "down.weight")):
                    weight.div_((2 * stack.config.num_layers) ** 0.5)
