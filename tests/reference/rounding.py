"""GPTQ the obvious way: one inverse for each column, in float64."""

import torch
from torch import Tensor


def gptq(
    weight: Tensor, gram: Tensor, steps: Tensor, low: int, high: int, damping: float
) -> Tensor:
    """Round the columns with the largest inputs first; whoever is left moves to cancel the error.

    Equation 2 of arXiv:2210.17323, with the inverse over what is left worked out anew each time.
    """
    weight, hessian = weight.double().clone(), gram.double().clone()
    hessian += damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
    left = sorted(range(len(gram)), key=lambda place: -float(gram[place, place]))
    numbers = torch.zeros_like(weight)
    while left:
        inverse = torch.linalg.inv(hessian[left][:, left])
        first = left[0]
        for row in range(len(weight)):
            step = float(steps[row, first])
            number = max(low, min(high, round(float(weight[row, first]) / step)))
            numbers[row, first] = number
            error = float(weight[row, first]) - number * step
            weight[row, left] -= error / inverse[0, 0] * inverse[0]
        left = left[1:]
    return numbers


def fake(weight: Tensor, group_size: int, low: int, high: int) -> Tensor:
    """Number by number: the scale of its group in bfloat16, the nearest whole number, back."""
    result = torch.empty_like(weight)
    for row, out in zip(weight, result, strict=True):
        for start in range(0, len(row), group_size):
            farthest = max(map(float, row[start : start + group_size]), key=abs)
            scale = float(torch.tensor(farthest / low).bfloat16())
            for place in range(start, start + group_size):
                number = max(low, min(high, round(float(row[place]) / scale)))
                out[place] = number * scale
    return result


def learned_step(weight: Tensor, scales: Tensor, group_size: int, low: int, high: int) -> Tensor:
    """LSQ as its appendix has it (arXiv:1902.08153), on autograd with what must not flow detached.

    Returns a tensor whose gradients to `weight` and `scales` (one for each group) are the paper's.
    """
    steps = scales.repeat_interleave(group_size, dim=-1)
    balance = (group_size * high) ** -0.5
    steps = (steps - steps * balance).detach() + steps * balance
    clamped = (weight / steps).clamp(low, high)
    rounded = (clamped.round() - clamped).detach() + clamped
    return rounded * steps
