"""Weighting and clipping of gradients in one pass over them."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed import all_reduce
from torch.distributed.tensor import DTensor


@torch.no_grad()
def scale_and_clip_(
    parameters: Iterable[nn.Parameter], scale: float, max_norm: float | None
) -> Tensor:
    """Multiply all gradients by `scale`, then shrink them to `max_norm`; one pass at most.

    Of gradients in parts (FSDP2) the norm is that of the whole, on every process.

    Returns the norm (a scalar tensor) that the scaled gradients had before they were clipped.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return torch.zeros(())
    parts = [grad.to_local() if isinstance(grad, DTensor) else grad for grad in grads]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(parts)))
    if isinstance(grads[0], DTensor):
        mesh, square = grads[0].device_mesh, norm.square()
        for axis, placement in enumerate(grads[0].placements):
            if placement.is_shard():
                all_reduce(square, group=mesh.get_group(axis))
        norm = square.sqrt()
    norm = norm * scale
    factor = torch.full_like(norm, scale)
    if max_norm is not None:
        factor = factor * (max_norm / (norm + 1e-6)).clamp(max=1.0)
    if norm.is_cuda or factor.item() != 1.0:
        torch._foreach_mul_(parts, factor)
    return norm
