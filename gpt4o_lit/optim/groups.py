"""Which parameters decay and which are hidden matrices, told by module, never by name."""

from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True, kw_only=True)
class ParameterKinds:
    """Every trainable parameter of a module, once (a tied one is an embedding), by kind."""

    matrices: list[nn.Parameter] = field(default_factory=list)
    """Weights with two or more dimensions inside the network."""
    embeddings: list[nn.Parameter] = field(default_factory=list)
    """Tables of nn.Embedding."""
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
    kinds = ParameterKinds()
    for parameter in module.parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in tables:
            kinds.embeddings.append(parameter)
        elif parameter.ndim < 2:
            kinds.vectors.append(parameter)
        else:
            kinds.matrices.append(parameter)
    if not (kinds.matrices or kinds.embeddings or kinds.vectors):
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
    decaying, still = list(kinds.matrices), list(kinds.vectors)
    (decaying if decay_embeddings else still).extend(kinds.embeddings)
    groups = ((decaying, weight_decay), (still, 0.0))
    return [{"params": params, "weight_decay": decay} for params, decay in groups if params]
