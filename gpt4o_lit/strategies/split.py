"""Which part of each weight a process has under tensor parallelism, and the whole again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gpt4o_lit.model import StackConfig, TransformerConfig
from gpt4o_lit.model.attention import Attention, CrossAttention
from gpt4o_lit.model.feed_forward import FeedForward, GatedFeedForward
from gpt4o_lit.model.linear import Linear
from gpt4o_lit.model.position import RelativeBias
from gpt4o_lit.model.transformer import Transformer


@dataclass(frozen=True)
class Split:
    """A weight is cut along one dimension, and where it holds several matrices each of them is."""

    dim: int
    parts: tuple[int, ...] = ()
    """Sizes of the matrices that lie behind one another along it; none: it is one."""

    def own(self, whole: Tensor, rank: int, size: int) -> Tensor:
        """The part of one of so many processes."""
        matrices = whole.split(self.parts or whole.shape[self.dim], self.dim)
        return torch.cat([matrix.chunk(size, self.dim)[rank] for matrix in matrices], self.dim)

    def joined(self, owned: Sequence[Tensor]) -> Tensor:
        """The whole of the parts of all processes, in their order."""
        rows = [part // len(owned) for part in self.parts] or owned[0].shape[self.dim]
        matrices = zip(*(own.split(rows, self.dim) for own in owned), strict=True)
        return torch.cat([part for matrix in matrices for part in matrix], self.dim)


def splits_of(network: Transformer) -> dict[str, Split]:
    """How the weights that are cut are cut, by name; what is not here each process has whole.

    Columns, rows (arXiv:1909.08053): what widens is cut by its outputs, what narrows behind it by
    its inputs. Heads, channels, pieces of the vocabulary and biases per head are dealt out.
    """
    found: dict[str, Split] = {}

    def outputs(name: str, layer: Linear) -> None:
        split = Split(0, getattr(layer, "row_parts", None) or ())
        found.update({f"{name}.weight": split, f"{name}.bias": split})

    for name, part in network.named_modules():
        if isinstance(part, Attention):
            outputs(f"{name}.qkv", part.qkv)
        elif isinstance(part, CrossAttention):
            outputs(f"{name}.q", part.q)
            outputs(f"{name}.kv", part.kv)
        elif isinstance(part, FeedForward):
            outputs(f"{name}.up", part.up)
        elif isinstance(part, GatedFeedForward):
            outputs(f"{name}.gate_up", part.gate_up)
        elif isinstance(part, RelativeBias):
            found[f"{name}.weight"] = Split(1)
        if isinstance(part, Attention | CrossAttention):
            found[f"{name}.output.weight"] = Split(1)
        elif isinstance(part, FeedForward | GatedFeedForward):
            found[f"{name}.down.weight"] = Split(1)
    found["tokens.weight"] = Split(0)
    if network.config.num_classes is None:
        found["head.weight"] = found["head.bias"] = Split(0)
    names = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    return {name: split for name, split in found.items() if name in names}


def require_shares(config: TransformerConfig, size: int) -> None:
    """Refuse so many processes where they cannot have equally much of the network.

    Raises:
        ValueError: they do not divide heads, key heads, channels or pieces.
    """
    stacks: dict[str, StackConfig | None] = {"encoder": config.encoder, "decoder": config.decoder}
    numbers: dict[str, int | None] = {}
    for name, stack in stacks.items():
        if stack is not None:
            numbers |= {
                f"{name}.attention.num_heads": stack.attention.num_heads,
                f"{name}.attention.num_kv_heads": stack.attention.kv_heads,
                f"{name}.feed_forward.ffn_dim": stack.ffn_dim,
            }
    numbers["vocab_size"] = config.vocab_size
    for name, number in numbers.items():
        if number is not None and number % size:
            raise ValueError(
                f"transformer.{name} ({number}) must be a multiple of the {size} processes that "
                f"share the network; set it to {-(-number // size) * size}, or have other "
                "processes (--trainer.devices, or size of TensorParallel)"
            )


def own_parameter(whole: Any, split: Split, rank: int, size: int) -> nn.Parameter:
    """A parameter that holds a process's part alone."""
    part = split.own(whole.detach(), rank, size).contiguous().clone()
    return nn.Parameter(part, requires_grad=whole.requires_grad)
