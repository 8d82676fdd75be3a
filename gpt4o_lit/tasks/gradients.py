"""Weighting and clipping of gradients in one pass over them."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import all_reduce
from torch.distributed.tensor import DTensor


class Window:
    """The sum of the losses of the micro-batches of an optimizer step, and how many targets."""

    def __init__(self) -> None:
        self.own = torch.zeros(2, dtype=torch.float64)
        """Of this process."""
        self._of_all: Tensor | None = None

    def add(self, loss_sum: Tensor, num_targets: Tensor) -> None:
        """Count a micro-batch."""
        sums = torch.stack([loss_sum.detach().double(), num_targets.double()])
        self.own = self.own.to(sums.device) + sums

    def of_all(self, reduce: Callable[..., Any], device: torch.device) -> Tensor:
        """The sums over all processes, of which the first to ask has them `reduce`d."""
        if self._of_all is None:
            self._of_all = reduce(self.own.to(device, copy=True), reduce_op="sum")
        return self._of_all


@torch.no_grad()
def scale_and_clip_(
    parameters: Iterable[nn.Parameter],
    scale: float,
    max_norm: float | None,
    total: Callable[[list[nn.Parameter], Tensor], Tensor] | None = None,
) -> Tensor:
    """Multiply all gradients by `scale`, then shrink them to `max_norm`; one pass at most.

    Of gradients in parts (FSDP2) the norm is that of the whole, on every process. Where weights are
    parts of a matrix (tensor parallelism), `total` sums a number of each over processes.

    Returns the norm (a scalar tensor) that the scaled gradients had before they were clipped.
    """
    weights = [weight for weight in parameters if weight.grad is not None]
    grads = [weight.grad for weight in weights if weight.grad is not None]
    if not grads:
        return torch.zeros(())
    parts = [grad.to_local() if isinstance(grad, DTensor) else grad for grad in grads]
    norms = torch.stack(torch._foreach_norm(parts))
    if total is None:
        norm = torch.linalg.vector_norm(norms)
    else:
        norm = total(weights, norms.square()).sqrt()
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
