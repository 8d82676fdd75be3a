"""Cutting heads, channels, features and blocks: what is left is a smaller network."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from gpt4o_lit.model import StackConfig, Transformer, TransformerConfig
from gpt4o_lit.model.attention import Attention, CrossAttention
from gpt4o_lit.model.feed_forward import FeedForward, GatedFeedForward
from gpt4o_lit.model.head import Head
from gpt4o_lit.model.norm import LayerNorm, RMSNorm
from gpt4o_lit.model.position import FixedTable, RelativeBias

Indices = Tensor | None
"""What stays along an axis, ascending; None: all of it."""
Axes = tuple[Indices, ...]
"""One for each axis of a tensor."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What stays of a network; equally much in each block of a stack, so that a config says it."""

    heads: Mapping[str, Tensor] = field(default_factory=dict)
    """Query heads by the name of the attention."""
    kv_heads: Mapping[str, Tensor] = field(default_factory=dict)
    """Key and value heads by the name of the attention."""
    channels: Mapping[str, Tensor] = field(default_factory=dict)
    """Inner features by the name of the feed-forward part."""
    features: Indices = None
    """Features of the tokens, the same in the whole network."""
    blocks: Mapping[str, Tensor] = field(default_factory=dict)
    """Blocks by the name of the stack."""

    def config(self, config: TransformerConfig) -> TransformerConfig:
        """That of what stays."""
        encoder, decoder = (
            stack and self._stack_config(name, stack)
            for name, stack in (("encoder", config.encoder), ("decoder", config.decoder))
        )
        return replace(config, encoder=encoder, decoder=decoder)

    def renamed(self, name: str) -> str | None:
        """What a weight is called afterwards; None where its block goes."""
        found = re.match(r"(encoder|decoder)\.blocks\.(\d+)\.", name)
        if found is None or found[1] not in self.blocks:
            return name
        blocks = self.blocks[found[1]].tolist()
        if int(found[2]) not in blocks:
            return None
        return f"{found[1]}.blocks.{blocks.index(int(found[2]))}.{name[found.end() :]}"

    def _stack_config(self, name: str, stack: StackConfig) -> StackConfig:
        attention = replace(
            stack.attention,
            num_heads=_count(self.heads, name, stack.attention.num_heads),
            num_kv_heads=_count(self.kv_heads, name, stack.attention.kv_heads),
            head_dim=stack.head_dim,
        )
        ffn_dim = _count(self.channels, name, stack.ffn_dim)
        return replace(
            stack,
            num_layers=len(self.blocks[name]) if name in self.blocks else stack.num_layers,
            dim=stack.dim if self.features is None else len(self.features),
            attention=attention,
            feed_forward=replace(stack.feed_forward, ffn_dim=ffn_dim),
        )


def cut_(network: Transformer, kept: Kept) -> dict[nn.Parameter, Axes | None]:
    """Leave what is kept; each weight that stays is the same object with less in it.

    Returns:
        For each weight what stayed along its axes, or None where it is gone: `cut_state_` wants it.
    """
    axes = axes_of(network, kept)
    with torch.device("meta"):
        smaller = Transformer(kept.config(network.config))
    cuts: dict[nn.Parameter, Axes | None] = {}
    for name, parameter in network.named_parameters():
        to = kept.renamed(name)
        cuts[parameter] = None if to is None else axes[name]
        if to is None:
            continue
        parameter.data, parameter.grad = cut_tensor(parameter.data, axes[name]), None
        owner, _, leaf = to.rpartition(".")
        module = smaller.get_submodule(owner)
        expected = getattr(module, leaf).shape
        assert parameter.shape == expected, f"{to} is {parameter.shape}, not {expected}"
        setattr(module, leaf, parameter)
    if network.config.ties_head:
        smaller.head.weight = smaller.tokens.weight
    for part in smaller.modules():
        if isinstance(part, FixedTable):
            part.to_empty(device=network.tokens.weight.device, recurse=False)
            part.reset_buffers()
    smaller.train(network.training)
    network.config, network.tokens, network.head = smaller.config, smaller.tokens, smaller.head
    network.encoder, network.decoder = smaller.encoder, smaller.decoder
    return cuts


def cut_state_(
    optimizer: torch.optim.Optimizer,
    cuts: Mapping[nn.Parameter, Axes | None],
    shapes: Mapping[nn.Parameter, torch.Size],
) -> None:
    """Leave of the optimizer's state what belongs to the weights that are left.

    Args:
        cuts: What `cut_` returned.
        shapes: Of the weights before they were cut.
    """
    for parameter, axes in cuts.items():
        state = optimizer.state.get(parameter)
        if state is None:
            continue
        if axes is None:
            del optimizer.state[parameter]
            continue
        for key, value in state.items():
            if isinstance(value, Tensor) and value.ndim == len(axes):
                # Adafactor's sums have a single row or column, which stays.
                sizes = zip(axes, value.shape, shapes[parameter], strict=True)
                state[key] = cut_tensor(
                    value, tuple(a if n == old else None for a, n, old in sizes)
                )
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if cuts.get(p, ()) is not None]


def cut_tensor(tensor: Tensor, axes: Axes) -> Tensor:
    """What stays of a tensor."""
    for axis, indices in enumerate(axes):
        if indices is not None:
            tensor = tensor.index_select(axis, indices)
    return tensor.contiguous()


def axes_of(network: Transformer, kept: Kept) -> dict[str, Axes]:
    """What stays along each axis of each weight, by its name before blocks are taken out."""
    axes = dict(_axes(network, kept))
    return {name: axes[name] for name, _ in network.named_parameters()}


def _axes(network: Transformer, kept: Kept) -> Iterator[tuple[str, Axes]]:
    features = kept.features
    for name, module in network.named_modules():
        if isinstance(module, Attention | CrossAttention):
            config, width = module.config, module.head_dim
            q = (config.num_heads * width, _spread(kept.heads.get(name), width))
            k = (config.kv_heads * width, _spread(kept.kv_heads.get(name), width))
            if isinstance(module, Attention):
                yield from _linear(f"{name}.qkv", _fused([q, k, k]), features)
            else:
                yield from _linear(f"{name}.q", q[1], features)
                yield from _linear(f"{name}.kv", _fused([k, k]), features)
            yield from _linear(f"{name}.output", features, q[1])
        elif isinstance(module, FeedForward | GatedFeedForward):
            inner = (module.down.in_features, kept.channels.get(name))
            if isinstance(module, GatedFeedForward):
                yield from _linear(f"{name}.gate_up", _fused([inner, inner]), features)
            else:
                yield from _linear(f"{name}.up", inner[1], features)
            yield from _linear(f"{name}.down", features, inner[1])
        elif isinstance(module, Head):
            yield from _linear(name, None, features)
            yield from _linear(f"{name}.transform", features, features)
        elif isinstance(module, RelativeBias):
            stack = name.partition(".")[0]
            yield f"{name}.weight", (None, kept.heads.get(f"{stack}.blocks.0.attention"))
        elif isinstance(module, nn.Embedding):
            yield f"{name}.weight", (None, features)
        elif isinstance(module, RMSNorm | LayerNorm):
            of_heads = name.endswith((".q_norm", ".k_norm"))
            for leaf in ("weight", "bias"):
                yield f"{name}.{leaf}", (None if of_heads else features,)


def _linear(name: str, rows: Indices, columns: Indices) -> Iterator[tuple[str, Axes]]:
    yield f"{name}.weight", (rows, columns)
    yield f"{name}.bias", (rows,)


def _spread(heads: Indices, width: int) -> Indices:
    """The rows of heads that are so many rows each."""
    if heads is None:
        return None
    return (heads[:, None] * width + torch.arange(width, device=heads.device)).flatten()


def _fused(parts: Sequence[tuple[int, Indices]]) -> Indices:
    """The rows of matrices that stand one above the other; each by its rows and what stays."""
    if all(indices is None for _, indices in parts):
        return None
    device = next(indices.device for _, indices in parts if indices is not None)
    rows, start = [], 0
    for count, indices in parts:
        rows.append((torch.arange(count, device=device) if indices is None else indices) + start)
        start += count
    return torch.cat(rows)


def _count(kept: Mapping[str, Tensor], stack: str, otherwise: int) -> int:
    """How many stay in each block of a stack."""
    counts = {len(indices) for name, indices in kept.items() if name.startswith(f"{stack}.")}
    assert len(counts) <= 1, f"blocks of the {stack} differ in size: {counts}"
    return counts.pop() if counts else otherwise
