"""Scales moved from what gives a layer's inputs into its weights, so that rounding hurts less."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gpt4o_lit.compression.rounding import round_to_nearest
from gpt4o_lit.model.block import Block
from gpt4o_lit.model.feed_forward import GatedFeedForward
from gpt4o_lit.model.weight_format import WeightFormat

# O outputs, I inputs

GRID = 20  # strengths that are tried
LEAST = 1e-4  # of what a scale is made of


@dataclass(frozen=True)
class Scalable:
    """A layer whose inputs come from rows that can be scaled without changing anything else."""

    reader: str
    """The layer's name."""
    layer: nn.Module
    rows: tuple[Tensor, ...]
    """Tensors whose first axis gives the layer's inputs: a norm's weight and bias, or rows."""

    @torch.no_grad()
    def scale_(self, scales_I: Tensor) -> None:
        """Divide the inputs by these and multiply the weight with them."""
        for given in self.rows:
            given.div_(scales_I.view(-1, *[1] * (given.ndim - 1)).to(given.dtype))
        weight_OI: Any = self.layer.weight
        weight_OI.mul_(scales_I.to(weight_OI.dtype))


def scalables(name: str, block: Block) -> Iterator[Scalable]:
    """The layers of a block that this can be done for.

    Those behind a norm, where nobody else reads the norm; `down` behind the ungated half of a gated
    feed-forward; `output` behind values, where each head has its own.
    """
    attention, cross, forward = block.attention, block.cross_attention, block.feed_forward
    if block.pre:
        yield _behind(f"{name}.attention.qkv", attention.qkv, block.attention_norm)
        if cross is not None and block.cross_attention_norm is not None:
            yield _behind(f"{name}.cross_attention.q", cross.q, block.cross_attention_norm)
        first = "gate_up" if isinstance(forward, GatedFeedForward) else "up"
        layer = getattr(forward, first)
        yield _behind(f"{name}.feed_forward.{first}", layer, block.ffn_norm)
    for part, module, fused in (("attention", attention, "qkv"), ("cross_attention", cross, "kv")):
        if module is not None and module.config.kv_heads == module.config.num_heads:
            width = module.output.in_features
            yield Scalable(
                f"{name}.{part}.output", module.output, _last_rows(getattr(module, fused), width)
            )
    if isinstance(forward, GatedFeedForward):
        width = forward.down.in_features
        yield Scalable(
            f"{name}.feed_forward.down", forward.down, _last_rows(forward.gate_up, width)
        )


def awq_scales(weight_OI: Tensor, gram_II: Tensor, format: WeightFormat) -> Tensor:
    """Which scales make rounding change least of what the layer gives (AWQ, arXiv:2306.00978).

    Args:
        gram_II: Products of each two inputs, summed over tokens.

    Returns:
        Powers of the inputs' root mean squares, the best of 20 from 0 (all ones) up: (I,).
    """
    sizes_I = gram_II.diagonal().sqrt()
    sizes_I = (sizes_I / sizes_I.mean().clamp(min=LEAST)).clamp(min=LEAST)
    best, least = torch.ones_like(sizes_I), float("inf")
    for strength in range(GRID):
        scales_I = sizes_I ** (strength / GRID)
        scales_I = scales_I / (scales_I.max() * scales_I.min()).sqrt()
        scaled_OI = weight_OI.float() * scales_I
        apart_OI = format.restore(*round_to_nearest(scaled_OI, format)) / scales_I - weight_OI
        error = float(((apart_OI @ gram_II) * apart_OI).sum())
        if error < least:
            best, least = scales_I, error
    return best


def smooth_scales(weight_OI: Tensor, largest_I: Tensor, strength: float = 0.5) -> Tensor:
    """Which scales share large inputs with the weights (SmoothQuant, arXiv:2211.10438): (I,).

    Args:
        largest_I: The largest magnitude of each input.
        strength: How much of it goes to the weights.
    """
    of_weight_I = weight_OI.float().abs().amax(0).clamp(min=LEAST)
    return (largest_I.clamp(min=LEAST) ** strength / of_weight_I ** (1 - strength)).clamp(min=LEAST)


def _behind(name: str, layer: nn.Module, norm: nn.Module) -> Scalable:
    return Scalable(name, layer, tuple(parameter.detach() for parameter in norm.parameters()))


def _last_rows(layer: Any, count: int) -> tuple[Tensor, ...]:
    return tuple(p.detach()[-count:] for p in (layer.weight, layer.bias) if p is not None)
