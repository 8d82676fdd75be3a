"""How much each head, channel, feature and block of a network matters, on some batches."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt4o_lit.compression.calibration import Measure, Reduce, measure_inputs
from gpt4o_lit.compression.reconstruction import reconstruction_scores
from gpt4o_lit.compression.structure import Axes, Kept, axes_of
from gpt4o_lit.model import Transformer
from gpt4o_lit.model.attention import Attention, CrossAttention
from gpt4o_lit.model.feed_forward import FeedForward, GatedFeedForward

# M tokens, I inputs, N heads, H head_dim, D dim, F ffn_dim, L layers

By = Literal["activation", "taylor", "reconstruction"]
Loss = Callable[[], Tensor]
"""The loss of one batch by the whole network."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Scores by the name of what they are of; the higher, the more it matters."""

    heads: dict[str, Tensor] = field(default_factory=dict)
    """(N,) by the name of the attention."""
    channels: dict[str, Tensor] = field(default_factory=dict)
    """(F,) by the name of the feed-forward part."""
    features: Tensor
    """(D,)"""
    blocks: dict[str, Tensor] = field(default_factory=dict)
    """(L,) by the name of the stack."""

    def map(self, change: Callable[[Tensor], Tensor]) -> "Importance":
        """Each of the scores changed, such as summed over processes."""
        return Importance(
            heads={name: change(scores) for name, scores in self.heads.items()},
            channels={name: change(scores) for name, scores in self.channels.items()},
            features=change(self.features),
            blocks={name: change(scores) for name, scores in self.blocks.items()},
        )


def measure_importance(
    network: Transformer,
    losses: Sequence[Loss],
    by: By,
    reduce: Reduce = lambda sums: sums,
) -> Importance:
    """Scores summed over batches; call it in evaluation mode, without compilation.

    Args:
        losses: Each reads one batch.
        by: activation: how large what a head, channel or feature gives is (arXiv:2407.14679).
            taylor: how much the loss would change without it, to first order: |sum of w dL/dw|
            (arXiv:1905.10650). reconstruction: how little of what a head or channel gives the
            others can give in its place (arXiv:2302.04089); features then go by activation. Blocks
            are scored by their influence either way: one minus the cosine between what they read
            and give (arXiv:2403.03853).
        reduce: Sums a tensor over the processes, which read different batches.
    """
    measure = _by_taylor if by == "taylor" else _by_activation
    with torch.compiler.set_stance("force_eager"):
        with _influence(network) as blocks:
            found = Importance(**measure(network, losses), blocks=blocks).map(reduce)
        if by != "reconstruction":
            return found
        heads, channels, _ = _parts(network)
        widths = {f"{name}.output": width for name, width in heads.items()}
        widths |= {f"{name}.down": 1 for name in channels}
        scores = reconstruction_scores(network, widths, losses, reduce)
    return replace(
        found,
        heads={name: scores[f"{name}.output"] for name in heads},
        channels={name: scores[f"{name}.down"] for name in channels},
    )


def _by_activation(network: Transformer, losses: Sequence[Loss]) -> dict[str, Any]:
    heads, channels, features = _parts(network)
    measures: dict[str, Measure] = {}
    for name, width in heads.items():
        measures[f"{name}.output"] = lambda x_MI, width=width: (  # type: ignore[misc]
            x_MI.unflatten(-1, (-1, width)).norm(dim=-1).sum(0)
        )
    for name in channels:
        measures[f"{name}.down"] = lambda x_MI: x_MI.abs().sum(0)
    for name in features:
        measures[name] = lambda x_MI: x_MI.abs().sum(0)
    with torch.no_grad():
        sums = measure_inputs(network, measures, lambda: [loss() for loss in losses])
    return {
        "heads": {name: sums[f"{name}.output"] for name in heads},
        "channels": {name: sums[f"{name}.down"] for name in channels},
        "features": torch.stack([sums[name] for name in features]).sum(0),
    }


def _by_taylor(network: Transformer, losses: Sequence[Loss]) -> dict[str, Any]:
    heads, channels, _ = _parts(network)
    reads, dim = _feature_axes(network), network.config.dim
    weights = dict(network.named_parameters())
    sums: dict[str, Any] = {"heads": {}, "channels": {}}
    for loss in losses:
        with torch.enable_grad():
            grads = torch.autograd.grad(loss(), list(weights.values()), allow_unused=True)
        product = {
            name: (weight.detach() * grad).float()
            for (name, weight), grad in zip(weights.items(), grads, strict=True)
            if grad is not None
        }
        for name, width in heads.items():
            columns_I = product[f"{name}.output.weight"].sum(0)
            _add(sums["heads"], name, columns_I.unflatten(0, (-1, width)).sum(1).abs())
        for name in channels:
            _add(sums["channels"], name, product[f"{name}.down.weight"].sum(0).abs())
        of_features = [
            product[name].movedim(axis, 0).reshape(dim, -1).sum(1)
            for name, axis in reads
            if name in product
        ]
        _add(sums, "features", torch.stack(of_features).sum(0).abs())
    return sums


def _parts(network: Transformer) -> tuple[dict[str, int], list[str], list[str]]:
    """Head widths by attention, feed-forward parts, and layers that read the residual stream."""
    heads, channels, features = {}, [], []
    for name, module in network.named_modules():
        if isinstance(module, Attention | CrossAttention):
            heads[name] = module.head_dim
            features.append(f"{name}.{'qkv' if isinstance(module, Attention) else 'q'}")
        elif isinstance(module, FeedForward | GatedFeedForward):
            channels.append(name)
            features.append(f"{name}.{'up' if isinstance(module, FeedForward) else 'gate_up'}")
    return heads, channels, features


def _feature_axes(network: Transformer) -> list[tuple[str, int]]:
    """Which axes of which weights are features of the residual stream."""
    marked = torch.arange(network.config.dim)
    axes: dict[str, Axes] = axes_of(network, Kept(features=marked))
    return [
        (name, axis)
        for name, indices in axes.items()
        for axis, index in enumerate(indices)
        if index is marked
    ]


def _add(sums: dict[str, Any], name: str, scores: Tensor) -> None:
    sums[name] = sums[name] + scores if name in sums else scores


@contextmanager
def _influence(network: Transformer) -> Iterator[dict[str, Tensor]]:
    """Sums one minus the cosine of what each block reads and gives, by stack: (L,)."""
    sums: dict[str, Tensor] = {}
    handles = []

    def hook(scores_L: Tensor, number: int) -> Callable[..., None]:
        def add(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            cosine = F.cosine_similarity(args[0].detach().float(), output.detach().float(), dim=-1)
            scores_L[number] += (1 - cosine).sum()

        return add

    for side in ("encoder", "decoder"):
        stack: Any = getattr(network, side)
        if stack is None:
            continue
        sums[side] = torch.zeros(len(stack.blocks), device=network.tokens.weight.device)
        for number, block in enumerate(stack.blocks):
            handles.append(block.register_forward_hook(hook(sums[side], number)))
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()
