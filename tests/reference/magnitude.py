"""Magnitude pruning the obvious way: sort everything."""

import torch
from torch import Tensor


def global_masks(weights: dict[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Sort all magnitudes in one list and drop the first ones, equals in the order they come."""
    everything = [
        (abs(float(value)), name, place)
        for name, weight in weights.items()
        for place, value in enumerate(weight.flatten())
    ]
    masks = {name: torch.ones(weight.numel(), dtype=torch.bool) for name, weight in weights.items()}
    count = round(sparsity * len(everything))
    for _, name, place in sorted(everything, key=lambda entry: entry[0])[:count]:
        masks[name][place] = False
    return {name: masks[name].view(weight.shape) for name, weight in weights.items()}
