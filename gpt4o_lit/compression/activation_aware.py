"""Pruning at once by what the layers read: Wanda and SparseGPT."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gpt4o_lit.compression.calibration import (
    Forward,
    Reduce,
    blocks_in_turn,
    gram,
    measure_inputs,
    norm_squares,
)
from gpt4o_lit.compression.magnitude import Pattern, smallest_of_rows, without_smallest
from gpt4o_lit.compression.second_order import root_of_inverse
from gpt4o_lit.model import Transformer

# O outputs, I inputs

Method = Literal["wanda", "sparse_gpt"]
COLUMNS = 128  # pruned one by one before the columns right of them learn of it


@dataclass(frozen=True, kw_only=True)
class Share:
    """How much of a matrix is pruned: a share, or N:M."""

    sparsity: float
    pattern: Pattern | None = None


@torch.no_grad()
def prune_blocks_(
    network: Transformer,
    weights: Mapping[str, Tensor],
    forwards: Sequence[Forward],
    method: Method,
    share: Share,
    reduce: Reduce,
) -> Iterator[dict[str, Tensor]]:
    """Prune block after block, each on what the pruned ones before it give.

    Args:
        weights: Matrices by the names of their layers, all of them within blocks.
        forwards: Each reads a batch by the whole network, in evaluation mode.
        reduce: Sums a tensor over the processes, which read different batches.

    Yields:
        For each block the masks of its matrices by name: True where a weight is kept.
    """
    measure = norm_squares if method == "wanda" else gram
    prune_ = wanda_ if method == "wanda" else sparse_gpt_
    with torch.compiler.set_stance("force_eager"):
        for block, _, run in blocks_in_turn(network, forwards):
            inside = [name for name in weights if name.startswith(f"{block}.")]
            measured = measure_inputs(network, dict.fromkeys(inside, measure), run)
            yield {name: prune_(weights[name], reduce(measured[name]), share) for name in inside}


def require_in_blocks(names: Sequence[str], method: Method) -> None:
    """Refuse matrices that stand in no block, such as the embeddings."""
    outside = [name for name in names if ".blocks." not in name]
    if outside:
        raise ValueError(
            f"{outside[0]} is in no block, but {method} prunes block by block; take embeddings and "
            "head out of targets.kinds"
        )


@torch.no_grad()
def wanda_(weight_OI: Tensor, norm_squares_I: Tensor, share: Share) -> Tensor:
    """Keep in each row what is large and reads large inputs (arXiv:2306.11695).

    Zeroes the others; returns the mask of those that are kept.
    """
    scores_OI = weight_OI.float().abs() * norm_squares_I.sqrt()
    if share.pattern is not None:
        kept_OI = share.pattern.mask(scores_OI)
    else:
        kept_OI = ~smallest_of_rows(scores_OI, share.sparsity)
    weight_OI.masked_fill_(~kept_OI, 0)
    return kept_OI


@torch.no_grad()
def sparse_gpt_(weight_OI: Tensor, gram_II: Tensor, share: Share) -> Tensor:
    """Prune column by column; what is right of each makes good for it (arXiv:2301.00774).

    Changes the weights that are kept too; returns their mask.
    """
    root_II = root_of_inverse(gram_II)
    work_OI = weight_OI.detach().float().clone()
    work_OI[:, gram_II.diagonal() == 0] = 0  # inputs that are always 0
    kept_OI = torch.ones_like(work_OI, dtype=torch.bool)
    outputs, inputs = work_OI.shape
    width = COLUMNS if share.pattern is None else COLUMNS - COLUMNS % share.pattern.group
    for start in range(0, inputs, width):
        end = min(start + width, inputs)
        columns, kept = work_OI[:, start:end], kept_OI[:, start:end]
        root = root_II[start:end, start:end]
        diagonal = root.diagonal()
        if share.pattern is None:
            count = round(share.sparsity * outputs * end) - round(share.sparsity * outputs * start)
            kept.copy_(without_smallest([(columns / diagonal).contiguous()], count)[0])
        errors = torch.zeros_like(columns)
        for place in range(end - start):
            if share.pattern is not None and place % share.pattern.group == 0:
                group = slice(place, place + share.pattern.group)
                kept[:, group] = share.pattern.mask(columns[:, group].abs() / diagonal[group])
            errors[:, place] = columns[:, place] * ~kept[:, place] / diagonal[place]
            columns[:, place:] -= errors[:, place, None] * root[place, place:]
        work_OI[:, end:] -= errors @ root_II[start:end, end:]
    weight_OI.copy_(work_OI.masked_fill_(~kept_OI, 0))
    return kept_OI
