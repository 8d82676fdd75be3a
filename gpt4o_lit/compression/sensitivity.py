"""What each layer suffers alone, and which format each gets so that bytes suffice."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt4o_lit.compression.magnitude import magnitude_masks
from gpt4o_lit.model.weight_format import WeightFormat

# O outputs, I inputs

Change = Callable[[Tensor], Tensor]
"""From a weight to what becomes of it."""
Rises = Mapping[str, Mapping[str, float]]
"""By layer, then by change: how much the loss rises."""


def rounded_to(format: WeightFormat) -> Change:
    """The weight as its numbers say it."""

    def change(weight_OI: Tensor) -> Tensor:
        scales_OG = format.scales(weight_OI)
        return format.restore(format.round(weight_OI, scales_OG), scales_OG)

    return change


def pruned_to(sparsity: float) -> Change:
    """The weight without this share of its smallest."""

    def change(weight_OI: Tensor) -> Tensor:
        return weight_OI * magnitude_masks({"weight": weight_OI}, sparsity, "layer")["weight"]

    return change


@torch.no_grad()
def loss_rises(
    weights: Mapping[str, Tensor], changes: Mapping[str, Change], loss: Callable[[], float]
) -> Iterator[tuple[str, str, float]]:
    """Change one weight at a time, and put it back.

    Args:
        weights: By the names of their layers; left as they were.
        changes: By their labels.
        loss: Of the network as it is.

    Yields:
        Layer, label, and the loss minus that of the network as it was.
    """
    before = loss()
    for layer, weight in weights.items():
        exact = weight.detach().clone()
        try:
            for label, change in changes.items():
                weight.copy_(change(exact))
                yield layer, label, loss() - before
        finally:
            weight.copy_(exact)


@dataclass(frozen=True)
class Choice:
    """A format of a layer, or none, with what it costs."""

    label: str
    format: WeightFormat | None
    num_bytes: float
    rise: float


def stored_bytes(weight_OI: Tensor, format: WeightFormat | None) -> float:
    """Bytes of numbers and scales; without a format of float32."""
    if format is None:
        return 4.0 * weight_OI.numel()
    groups = format.num_groups(weight_OI.shape[-1])
    return weight_OI.numel() * format.bits / 8 + 2.0 * len(weight_OI) * groups


def choose_formats(choices: Mapping[str, Sequence[Choice]], budget: float) -> dict[str, Choice]:
    """For each layer the choice by which the sum of rises is small and the bytes fit the budget.

    Starts from what hurts least, and step by step takes the change that saves bytes most cheaply,
    rise per byte, as the Lagrangian of the knapsack problem has it (arXiv:1911.03852).

    Raises:
        ValueError: the smallest choices are larger than the budget.
    """
    least = sum(min(each.num_bytes for each in own) for own in choices.values())
    if least > budget:
        raise ValueError(
            f"the budget of {budget:,.0f} bytes is below the {least:,.0f} that the smallest "
            "formats take; raise it"
        )
    chosen = {
        layer: min(own, key=lambda c: (c.rise, c.num_bytes)) for layer, own in choices.items()
    }
    while sum(each.num_bytes for each in chosen.values()) > budget:
        steps = [
            ((other.rise - now.rise) / (now.num_bytes - other.num_bytes), layer, other)
            for layer, now in chosen.items()
            for other in choices[layer]
            if other.num_bytes < now.num_bytes
        ]
        _, layer, other = min(steps, key=lambda step: step[:2])
        chosen[layer] = other
    return chosen


def _least_rise(choice: Choice) -> tuple[float, float]:
    return choice.rise, choice.num_bytes
