"""What a layer's inputs say of changes to its weights: the Hessian of its squared error."""

import torch
from torch import Tensor

# I inputs

DAMPING = 0.01  # share of the Hessian's mean diagonal that is added to it


def inverse_of_hessian(gram_II: Tensor) -> Tensor:
    """The inverse of the damped Hessian: (I, I). Inputs that are always 0 count as independent.

    Args:
        gram_II: Products of each two inputs, summed over tokens.
    """
    hessian = gram_II.clone()
    diagonal = hessian.diagonal()
    diagonal[diagonal == 0] = 1
    diagonal += DAMPING * diagonal.mean()
    return torch.cholesky_inverse(torch.linalg.cholesky(hessian))


def root_of_inverse(gram_II: Tensor) -> Tensor:
    """The upper triangular root of the damped Hessian's inverse: (I, I).

    Row by row it holds what the inverse would be without the columns that are done with, which
    pruning and rounding column by column need (arXiv:2210.17323).

    Args:
        gram_II: Products of each two inputs, summed over tokens.
    """
    return torch.linalg.cholesky(inverse_of_hessian(gram_II), upper=True)
