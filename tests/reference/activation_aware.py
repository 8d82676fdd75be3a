"""Wanda and SparseGPT the obvious way: one weight at a time, one inverse for each column."""

import torch
from torch import Tensor


def wanda(weight: Tensor, inputs: Tensor, pruned_per_group: int, group: int) -> Tensor:
    """Zero the lowest |weight| x |input| of each `group` weights of each row."""
    result = weight.clone()
    for row in result:
        for start in range(0, len(row), group):
            scores = [
                (abs(float(row[place])) * float(inputs[:, place].norm()), place)
                for place in range(start, start + group)
            ]
            for _, place in sorted(scores)[:pruned_per_group]:
                row[place] = 0
    return result


def sparse_gpt(weight: Tensor, inputs: Tensor, kept: Tensor, damping: float) -> Tensor:
    """Optimal brain surgery in float64, left to right, on weights that are not `kept`.

    Each column's removal changes those right of it by the inverse of the Hessian over what is
    still there (arXiv:2301.00774, equation 3), which is worked out anew for each.
    """
    weight, inputs = weight.double().clone(), inputs.double()
    hessian = inputs.T @ inputs
    hessian += damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
    for place in range(weight.shape[1]):
        inverse = torch.linalg.inv(hessian[place:, place:])
        for row, mask in zip(weight, kept, strict=True):
            if not mask[place]:
                row[place:] -= row[place].clone() / inverse[0, 0] * inverse[0]
                row[place] = 0
    return weight
