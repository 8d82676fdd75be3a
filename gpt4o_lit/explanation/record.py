"""What attention and blocks do while a network reads a text."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from gpt4o_lit.model import Transformer, attention_weights
from gpt4o_lit.model.attention import Attention, CrossAttention
from gpt4o_lit.model.stack import Stack

# L layers, N heads, T target tokens, S source tokens, D dim


@dataclass
class Record:
    """What one text did to a network; weights of each query add up to one."""

    attention: dict[str, Tensor] = field(default_factory=dict)
    """`encoder` (L, N, S, S), `decoder` (L, N, T, T) and `cross` (L, N, T, S), as they are."""
    states: dict[str, list[Tensor]] = field(default_factory=dict)
    """By stack, behind the embedding and each block: (T, D) or (S, D)."""
    logits_TV: Tensor = field(default_factory=lambda: torch.empty(0))


@torch.inference_mode()
def record(
    transformer: Transformer,
    tokens_1T: Tensor,
    source_1S: Tensor | None = None,
    *,
    bidirectional: bool = False,
) -> Record:
    """Read one text, and a source where there are an encoder and a decoder.

    Whatever kernel computes attention, the weights are what its queries, keys and mask say. The
    tokens see one another both ways where `bidirectional` (prefix LM).

    Raises:
        ValueError: as the network's own.
    """
    found = Record()
    weights: dict[str, list[Tensor]] = {}
    with ExitStack() as hooks, torch.compiler.set_stance("force_eager"):
        for name in ("encoder", "decoder"):
            stack = getattr(transformer, name)
            if stack is not None:
                hooks.enter_context(_written_out(stack))
                _watch(stack, name, found, weights, hooks)
        prefix_1T = torch.ones_like(tokens_1T, dtype=torch.bool) if bidirectional else None
        logits_1TV = transformer(tokens_1T, source_BS=source_1S, prefix_BT=prefix_1T)
        found.logits_TV = logits_1TV[0].float()
    found.attention = {name: torch.stack(layers) for name, layers in weights.items()}
    return found


def _watch(
    stack: Stack, name: str, found: Record, weights: dict[str, list[Tensor]], hooks: ExitStack
) -> None:
    states = found.states.setdefault(name, [])

    def see_self(module: Attention, inputs: tuple[Any, ...]) -> None:
        x_1TD, mask, angles, _ = inputs
        q_1TNH, k_1TKH, _ = module.queries_keys_values(x_1TD, angles)
        weights.setdefault(name, []).append(
            attention_weights(q_1TNH, k_1TKH, mask, scale=module.config.scale)[0]
        )

    def see_cross(module: CrossAttention, inputs: tuple[Any, ...]) -> None:
        x_1TD, mask, memory_1SD, _ = inputs
        k_1SKH, _ = module.keys_values(memory_1SD, None)
        weights.setdefault("cross", []).append(
            attention_weights(module.queries(x_1TD), k_1SKH, mask, scale=module.config.scale)[0]
        )

    def see_before(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        states.append(inputs[0][0])

    def see_after(_: nn.Module, __: object, output: Tensor) -> None:
        states.append(output[0])

    def keep(handle: Any) -> None:
        hooks.callback(handle.remove)

    blocks: Any = stack.blocks
    for layer, block in enumerate(blocks):
        if layer == 0:
            keep(block.register_forward_pre_hook(see_before))
        keep(block.register_forward_hook(see_after))
        keep(block.attention.register_forward_pre_hook(see_self))
        if block.cross_attention is not None:
            keep(block.cross_attention.register_forward_pre_hook(see_cross))


@contextmanager
def _written_out(stack: Stack) -> Iterator[None]:
    """FlexAttention's masks are blocks; for a while they are written out."""
    before = stack.config
    stack.config = replace(before, attention=replace(before.attention, kernel="eager"))
    blocks: Any = stack.blocks
    attentions = [block.attention for block in blocks]
    kernels = [attention.config for attention in attentions]
    for attention in attentions:
        attention.config = stack.config.attention
    try:
        yield
    finally:
        stack.config = before
        for attention, config in zip(attentions, kernels, strict=True):
            attention.config = config


def rollout(weights_LNTT: Tensor) -> Tensor:
    """How much of each token's final state comes from each token: (T, T), rows add up to one.

    Each layer is the mean of its heads and, for the residual sum, half identity; layers are
    multiplied (attention rollout, arXiv:2005.00928).
    """
    same_TT = torch.eye(weights_LNTT.shape[-1], device=weights_LNTT.device)
    mixed_TT = same_TT
    for layer_TT in weights_LNTT.mean(1):
        mixed_TT = (layer_TT + same_TT) / 2 @ mixed_TT
    return mixed_TT
