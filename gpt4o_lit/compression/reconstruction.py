"""Which heads and channels can go because what stays makes good for them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gpt4o_lit.compression.calibration import Forward, Reduce, blocks_in_turn, gram, measure_inputs
from gpt4o_lit.compression.second_order import inverse_of_hessian
from gpt4o_lit.model import Transformer

# O outputs, I inputs, P parts, W inputs of a part, C inputs of the parts that go

ROUNDS = 256
"""In which the parts of a layer go; where they are no more than these, one by one."""


@torch.no_grad()
def reconstruction_scores(
    network: Transformer, widths: Mapping[str, int], forwards: Sequence[Forward], reduce: Reduce
) -> dict[str, Tensor]:
    """`removal_errors` by layer, each layer on what it reads in the network as it is.

    Args:
        widths: Inputs of a part, by the name of the layer that reads the parts.
        forwards: Each reads a batch by the whole network, in evaluation mode.
        reduce: Sums a tensor over the processes, which read different batches.
    """
    scores = {}
    for block, _, run in blocks_in_turn(network, forwards):
        inside = [name for name in widths if name.startswith(f"{block}.")]
        for name, gram_II in measure_inputs(network, dict.fromkeys(inside, gram), run).items():
            weight_OI = network.get_submodule(name).weight
            assert isinstance(weight_OI, Tensor)
            scores[name] = removal_errors(weight_OI, reduce(gram_II), widths[name])
    return scores


def removal_errors(weight_OI: Tensor, gram_II: Tensor, width: int) -> Tensor:
    """The squared error of a layer's outputs once a part and all that go before it are gone: (P,).

    Parts go in turn, always those without which what stays, fitted anew, errs least (ZipLM,
    arXiv:2302.04089). Of two that say the same one goes early, and the other then late.

    Args:
        gram_II: Products of each two inputs, summed over tokens.
        width: Inputs of a part: a head's, or 1.
    """
    inverse_II = inverse_of_hessian(gram_II)
    work_OI = weight_OI.detach().float().clone()
    parts = work_OI.shape[1] // width
    gone_P = torch.zeros(parts, dtype=torch.bool, device=work_OI.device)
    errors_P = torch.zeros(parts, device=work_OI.device)
    steps_W = torch.arange(width, device=work_OI.device)
    total = torch.zeros((), device=work_OI.device)
    at_once = -(-parts // ROUNDS)
    for start in range(0, parts, at_once):
        own_P = _own_errors(work_OI, inverse_II, width, gone_P)
        going = own_P.topk(min(at_once, parts - start), largest=False).indices
        columns_C = (going[:, None] * width + steps_W).flatten()
        rows_CI, lost_CO = inverse_II[columns_C], work_OI[:, columns_C].T
        among_CC = rows_CI[:, columns_C]
        fitted_CO = torch.linalg.solve(among_CC, lost_CO)
        total = total + (fitted_CO * lost_CO).sum()
        errors_P[going], gone_P[going] = total, True
        work_OI -= fitted_CO.T @ rows_CI
        inverse_II -= rows_CI.T @ torch.linalg.solve(among_CC, rows_CI)
    return errors_P


def _own_errors(work_OI: Tensor, inverse_II: Tensor, width: int, gone_P: Tensor) -> Tensor:
    """What each part alone would add to the error: (P,); infinite where it is gone."""
    if width == 1:
        errors_P = work_OI.square().sum(0) / inverse_II.diagonal()
    else:
        squares = inverse_II.unflatten(0, (-1, width)).unflatten(2, (-1, width))
        own_PWW = squares.diagonal(dim1=0, dim2=2).permute(2, 0, 1).clone()
        own_PWW[gone_P] = torch.eye(width, device=own_PWW.device)
        columns_PWO = work_OI.T.unflatten(0, (-1, width))
        errors_P = (torch.linalg.solve(own_PWW, columns_PWO) * columns_PWO).sum((1, 2))
    return errors_P.masked_fill(gone_P, float("inf"))
