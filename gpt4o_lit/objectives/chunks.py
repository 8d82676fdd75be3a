"""The linear head of a loss in chunks: its logits, and the gradients that their slopes give.

Shapes: N positions, C positions of a chunk, D dim, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

CHUNK_BYTES = {"cpu": 100 << 20, "cuda": 512 << 20}
"""Room for the logits of a chunk, by device; measured by benchmarks/loss_speed.py."""

ROWS_AT_ONCE = 2048
"""Rows of the weight's gradient that are added in one go: what is widened for it fits a cache."""


def asked(targets_N: Tensor, ignore_index: int) -> tuple[Tensor | None, Tensor]:
    """Indices of the positions that are asked something (None for all), and their targets."""
    kept_N = (targets_N != ignore_index).nonzero().squeeze(1)
    if kept_N.shape[0] == targets_N.shape[0]:
        return None, targets_N
    return kept_N, targets_N[kept_N]


def chunks(length: int, size: int) -> Iterator[slice]:
    """Cut into as few pieces as fit the size, all of nearly one length."""
    num_chunks = max(1, -(-length // size))
    step = max(1, -(-length // num_chunks))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


@dataclass(frozen=True, eq=False)
class VocabularyPart:
    """The rows of the output matrix that this process has, as many as each other of its group.

    Logits then stay in parts too: what is sent is a number or two for each position (loss parallel,
    arXiv:1909.08053). A process's gradient of the features is that of its own part.
    """

    rank: int
    size: int
    """Of how many processes."""
    group: Any = None
    """A torch.distributed group."""

    def rows(self, targets_C: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
        """The targets as rows of this part, 0 for those of others, and which are here: (C,)."""
        if self.size == 1:
            return targets_C, torch.ones_like(targets_C, dtype=torch.bool)
        rows_C = targets_C - self.rank * num_rows
        here_C = (rows_C >= 0) & (rows_C < num_rows)
        return rows_C.where(here_C, 0), here_C

    def sum(self, x: Tensor) -> Tensor:
        """Over all parts."""
        return self._reduced(x, distributed.ReduceOp.SUM)

    def max(self, x: Tensor) -> Tensor:
        """Over all parts."""
        return self._reduced(x, distributed.ReduceOp.MAX)

    def _reduced(self, x: Tensor, operation: Any) -> Tensor:
        if self.size > 1:
            x = x.contiguous()
            distributed.all_reduce(x, operation, group=self.group)
        return x


WHOLE = VocabularyPart(rank=0, size=1)


def normalize_(logits_CV: Tensor, part: VocabularyPart = WHOLE) -> Tensor:
    """Turn logits into probabilities in place; returns the log Z (C,) that they were divided by."""
    peak_C = part.max(logits_CV.amax(dim=1))
    if part.size > 1:
        total_C = part.sum(logits_CV.sub_(peak_C[:, None]).exp_().sum(dim=1))
        logits_CV.div_(total_C[:, None])
        return peak_C + total_C.log()
    torch.softmax(logits_CV, dim=1, out=logits_CV)
    # With the peak taken off, the greatest probability is 1/Z: log Z needs no pass of its own.
    return peak_C - logits_CV.amax(dim=1).log()


def at_targets(
    logits_CV: Tensor, targets_C: Tensor, part: VocabularyPart = WHOLE
) -> tuple[Tensor, Tensor, Tensor]:
    """The logits of the targets (C,); in which row of the part each is, and whether it is there."""
    rows_C, here_C = part.rows(targets_C, logits_CV.shape[1])
    own_C = logits_CV.gather(1, rows_C[:, None]).squeeze(1)
    return part.sum(own_C * here_C), rows_C, here_C


def come_first(logits_CV: Tensor, targets_C: Tensor, part: VocabularyPart = WHOLE) -> Tensor:
    """Whether each target has the greatest logit, and none before it has the same: (C,)."""
    rows_C = logits_CV.argmax(dim=1)
    if part.size == 1:
        return rows_C == targets_C
    peak_C = logits_CV.gather(1, rows_C[:, None]).squeeze(1)
    own_C, never = rows_C + part.rank * logits_CV.shape[1], part.size * logits_CV.shape[1]
    own_C = own_C.where(peak_C == part.max(peak_C.clone()), never)
    return -part.max(-own_C) == targets_C


def log_sum_exp(logits_CV: Tensor, part: VocabularyPart = WHOLE) -> Tensor:
    """log Z of all logits: (C,)."""
    if part.size == 1:
        return logits_CV.logsumexp(dim=1)
    peak_C = part.max(logits_CV.amax(dim=1))
    return peak_C + part.sum((logits_CV - peak_C[:, None]).exp_().sum(dim=1)).log()


class ChunkedHead:
    """The head's operands in the dtype that autocast wants, and its logits chunk by chunk."""

    def __init__(
        self, features_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, softcap: float | None
    ) -> None:
        device_type = features_ND.device.type
        dtype = features_ND.dtype
        if torch.is_autocast_enabled(device_type) and dtype != torch.float64:
            dtype = torch.get_autocast_dtype(device_type)
        self.features = features_ND.detach().to(dtype)
        self.weight = weight_VD.detach().to(dtype)
        self.bias = None if bias_V is None else bias_V.detach().to(dtype)
        self.softcap = softcap
        self.loss_dtype = torch.promote_types(dtype, torch.float32)
        self._buffer: Tensor | None = None

    def chunk_size(self, wanted: int | None) -> int:
        """Positions of a chunk: as wanted, or as many as there is room for."""
        if wanted is not None:
            if wanted < 1:
                raise ValueError(
                    f"chunk_size ({wanted}) must be at least 1; leave it out to choose it"
                )
            return wanted
        room = CHUNK_BYTES.get(self.weight.device.type, CHUNK_BYTES["cpu"])
        return max(32, room // (self.loss_dtype.itemsize * self.weight.shape[0]))

    def logits(self, features_CD: Tensor) -> Tensor:
        """Soft-capped logits (C, V) in the dtype of the loss; the next call writes over them."""
        product_CV = self._product(features_CD)
        if self.bias is not None:
            product_CV.add_(self.bias)
        logits_CV = product_CV.to(self.loss_dtype)
        if self.softcap is not None:
            logits_CV.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits_CV

    def _product(self, features_CD: Tensor) -> Tensor:
        """Features times weight, in one buffer that every chunk uses again."""
        shape = (features_CD.shape[0], self.weight.shape[0])
        if self._buffer is None or self._buffer.shape[0] < shape[0]:
            self._buffer = features_CD.new_empty(shape)
        with torch.autocast(features_CD.device.type, enabled=False):
            return torch.mm(features_CD, self.weight.t(), out=self._buffer[: shape[0]])


class HeadGradients:
    """Gradients of features, weight and bias, grown chunk by chunk."""

    def __init__(
        self, features_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, needed: list[bool]
    ) -> None:
        self.features = torch.empty_like(features_ND) if needed[0] else None
        self.weight = torch.zeros_like(weight_VD) if needed[1] else None
        self.bias = torch.zeros_like(bias_V) if bias_V is not None and needed[2] else None

    def add(self, head: ChunkedHead, rows: slice, slopes_CV: Tensor) -> None:
        """Take in the slopes of one chunk, in the dtype of the head's products."""
        with torch.autocast(slopes_CV.device.type, enabled=False):
            if self.features is not None:
                _write(self.features[rows], slopes_CV, head.weight)
            if self.weight is not None:
                _accumulate(self.weight, slopes_CV.t(), head.features[rows])
        if self.bias is not None:
            self.bias.add_(slopes_CV.sum(dim=0))


def _write(out: Tensor, left: Tensor, right: Tensor) -> None:
    if out.dtype == left.dtype:
        torch.mm(left, right, out=out)
    else:
        out.copy_(left @ right)


def _accumulate(out: Tensor, left: Tensor, right: Tensor) -> None:
    if out.dtype == left.dtype:
        out.addmm_(left, right)
    else:
        product = left @ right
        for rows in chunks(out.shape[0], ROWS_AT_ONCE):
            out[rows].add_(product[rows])
