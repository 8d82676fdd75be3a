"""Which parameters decay and which are hidden matrices, told by module, never by name."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class ParameterKinds:
    """Every trainable parameter of a module, once (a tied one is an embedding), by kind."""

    matrices: list[nn.Parameter] = field(default_factory=list)
    """Weights with two or more dimensions inside the network."""
    head: list[nn.Parameter] = field(default_factory=list)
    """The same, of the module's `head`, which turns features into logits."""
    embeddings: list[nn.Parameter] = field(default_factory=list)
    """Tables of nn.Embedding: pieces, positions, T5's biases of distance."""
    vectors: list[nn.Parameter] = field(default_factory=list)
    """Norms, biases and scalars: fewer than two dimensions."""


def parameter_kinds(module: nn.Module) -> ParameterKinds:
    """Sort the trainable parameters; raises ValueError where there is none."""
    tables = {
        id(parameter)
        for child in module.modules()
        if isinstance(child, nn.Embedding | nn.EmbeddingBag)
        for parameter in child.parameters(recurse=False)
    }
    head = getattr(module, "head", None)
    of_head = {id(parameter) for parameter in head.parameters()} if head is not None else set()
    kinds = ParameterKinds()
    for parameter in module.parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in tables:
            kinds.embeddings.append(parameter)
        elif parameter.ndim < 2:
            kinds.vectors.append(parameter)
        elif id(parameter) in of_head:
            kinds.head.append(parameter)
        else:
            kinds.matrices.append(parameter)
    if not (kinds.matrices or kinds.head or kinds.embeddings or kinds.vectors):
        name = type(module).__name__
        raise ValueError(
            f"{name} has no trainable parameter; unfreeze some before building an optimizer"
        )
    return kinds


def decay_groups(
    module: nn.Module, weight_decay: float, decay_embeddings: bool
) -> list[dict[str, object]]:
    """Two groups, the decaying and the others, without the empty one."""
    kinds = parameter_kinds(module)
    decaying, still = kinds.matrices + kinds.head, list(kinds.vectors)
    (decaying if decay_embeddings else still).extend(kinds.embeddings)
    groups = ((decaying, weight_decay), (still, 0.0))
    return [{"params": params, "weight_decay": decay} for params, decay in groups if params]


def row_parts(module: nn.Module) -> dict[int, tuple[int, ...]]:
    """By the id of a weight, the rows of each of the matrices that are fused in it.

    A module whose weight holds several matrices, one above the other (queries, keys, values; gate,
    up), says so in its attribute `row_parts`, a tuple of row counts.
    """
    found: dict[int, tuple[int, ...]] = {}
    for child in module.modules():
        rows: Any = getattr(child, "row_parts", None)
        if rows is not None:
            found[id(child.weight)] = tuple(int(count) for count in rows)
    return found


def refresh_row_parts(optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
    """Tell the groups of an optimizer what is fused in their weights, whose shapes have changed."""
    parts = row_parts(module)
    for group in optimizer.param_groups:
        if "row_parts" in group and group["params"]:
            group["row_parts"] = parts.get(id(group["params"][0]), ())
