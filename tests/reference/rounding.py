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
