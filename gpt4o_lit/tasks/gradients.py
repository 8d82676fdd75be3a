"""Weighting and clipping of gradients in one pass over them."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def scale_and_clip_(
    parameters: Iterable[nn.Parameter], scale: float, max_norm: float | None
) -> Tensor:
    """Multiply all gradients by `scale`, then shrink them to `max_norm`; one pass at most.

    Returns the norm (a scalar tensor) that the scaled gradients had before they were clipped.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return torch.zeros(())
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads))) * scale
    factor = torch.full_like(norm, scale)
    if max_norm is not None:
        factor = factor * (max_norm / (norm + 1e-6)).clamp(max=1.0)
    if norm.is_cuda or factor.item() != 1.0:
        torch._foreach_mul_(grads, factor)
    return norm
