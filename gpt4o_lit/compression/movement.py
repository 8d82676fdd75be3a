"""Scores learned beside the weights: which of them training moves away from zero."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

CHUNK = 1 << 19  # elements


class MovementScores:
    """Scores of some matrices, and what is pruned of them for the time being (arXiv:2005.07683).

    A score sums -w dL/dw over the steps: it rises where a step drives the weight away from zero.
    Pruned weights count with the value that they had (straight-through), so they may come back.

    Args:
        weights: Matrices by name.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = dict(weights)
        self.scores = {
            name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()
        }
        self._dormant: dict[str, Tensor] = {}  # zero where a weight is kept; none before pruning

    @torch.no_grad()
    def learn_(self, scale: float = 1.0) -> None:
        """Add what the gradients of a step, times `scale`, say; nothing where one is not finite.

        Call it before pruned weights lose their gradients.
        """
        slopes = ((name, weight.grad) for name, weight in self.weights.items())
        grads = {name: grad for name, grad in slopes if grad is not None}
        if not grads or not torch.stack(torch._foreach_norm(list(grads.values()))).isfinite().all():
            return
        for name, grad in grads.items():
            weight = self.weights[name]
            if name not in self._dormant:
                self.scores[name].addcmul_(grad, weight, value=-scale)
                continue
            # Part by part, so that the sum stays in the cache.
            tensors = (self.scores[name], grad, weight, self._dormant[name])
            parts = (tensor.detach().view(-1).split(CHUNK) for tensor in tensors)
            for score, slope, kept, dormant in zip(*parts, strict=True):
                score.addcmul_(slope, kept + dormant, value=-scale)

    @torch.no_grad()
    def swap_(self, kept: Mapping[str, Tensor]) -> None:
        """Wake the weights that are kept now, and lay the others to rest."""
        for name, weight in self.weights.items():
            if name in self._dormant:
                weight += self._dormant[name]
            self._dormant[name] = weight.masked_fill(kept[name], 0)
            weight.masked_fill_(~kept[name], 0)

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors."""
        return {"scores": self.scores, "dormant": self._dormant}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take over from a checkpoint."""
        for name, scores in state["scores"].items():
            self.scores[name].copy_(scores)
        self._dormant = {
            name: values.to(self.weights[name].device) for name, values in state["dormant"].items()
        }
