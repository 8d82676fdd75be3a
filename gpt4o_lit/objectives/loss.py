"""Cross-entropy of a linear head in chunks: the logits of all positions never exist at once.

Shapes: N positions, C positions of a chunk, D dim, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gpt4o_lit.objectives.objective import IGNORED

CHUNK_BYTES = {"cpu": 100 << 20, "cuda": 512 << 20}
"""Room for the logits of a chunk, by device; measured by benchmarks/loss_speed.py."""


ROWS_AT_ONCE = 2048
"""Rows of the weight's gradient that are added in one go: what is widened for it fits a cache."""


@torch.compiler.disable
def linear_cross_entropy(
    features_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    ignore_index: int = IGNORED,
    chunk_size: int | None = None,
) -> Tensor:
    """Sum of the negative log-likelihoods, in nats, of the targets that are not ignored.

    Logits and their gradient are made once, by chunks, in the forward; the backward only scales.
    Follows autocast: products in its dtype, softmax in float32. `z_loss` adds that weight times
    log(Z)² (arXiv:2204.02311). The result is differentiable once.
    """
    kept_N, targets_N = _asked(targets_N, ignore_index)
    if kept_N is not None:
        features_ND = features_ND[kept_N]
    options = _Options(softcap, z_loss, label_smoothing, chunk_size, torch.is_grad_enabled())
    return _LinearCrossEntropy.apply(features_ND, weight_VD, bias, targets_N, options)


@torch.compiler.disable
@torch.no_grad()
def token_statistics(
    features_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    ignore_index: int = IGNORED,
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Per position the negative log-likelihood of its target, and whether the target comes first.

    Ignored positions give 0 and False. Both (N,); the first float32, or float64 for such input.
    """
    head = _Head(features_ND, weight_VD, bias, softcap)
    nll_N = torch.zeros(targets_N.shape, dtype=head.loss_dtype, device=targets_N.device)
    correct_N = torch.zeros(targets_N.shape, dtype=torch.bool, device=targets_N.device)
    kept_N, asked_M = _asked(targets_N, ignore_index)
    nlls, corrects = [nll_N[:0]], [correct_N[:0]]
    features_MD = head.features if kept_N is None else head.features[kept_N]
    for rows in _chunks(asked_M.shape[0], head.chunk_size(chunk_size)):
        logits_CV = head.logits(features_MD[rows])
        targets_C = asked_M[rows]
        corrects.append(logits_CV.argmax(dim=-1) == targets_C)
        logits_CV.sub_(logits_CV.gather(1, targets_C[:, None]))
        nlls.append(logits_CV.logsumexp(dim=-1))
    if kept_N is None:
        return torch.cat(nlls), torch.cat(corrects)
    nll_N[kept_N], correct_N[kept_N] = torch.cat(nlls), torch.cat(corrects)
    return nll_N, correct_N


def _asked(targets_N: Tensor, ignore_index: int) -> tuple[Tensor | None, Tensor]:
    """Indices of the positions that are asked something (None for all), and their targets."""
    kept_N = (targets_N != ignore_index).nonzero().squeeze(1)
    if kept_N.shape[0] == targets_N.shape[0]:
        return None, targets_N
    return kept_N, targets_N[kept_N]


def _chunks(length: int, size: int) -> Iterator[slice]:
    """Cut into as few pieces as fit the size, all of nearly one length."""
    num_chunks = max(1, -(-length // size))
    step = max(1, -(-length // num_chunks))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


class _Head:
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


class _Options:
    """What the loss is told besides its tensors."""

    def __init__(
        self,
        softcap: float | None,
        z_loss: float,
        label_smoothing: float,
        chunk_size: int | None,
        with_gradients: bool,
    ) -> None:
        self.softcap = softcap
        self.z_loss = z_loss
        self.label_smoothing = label_smoothing
        self.chunk_size = chunk_size
        self.with_gradients = with_gradients


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        options: _Options,
    ) -> Tensor:
        head = _Head(features_ND, weight_VD, bias_V, options.softcap)
        needed = [options.with_gradients and need for need in ctx.needs_input_grad[:3]]
        gradients = _Gradients(features_ND, weight_VD, bias_V, needed)
        total = torch.zeros((), dtype=head.loss_dtype, device=features_ND.device)
        for rows in _chunks(targets_N.shape[0], head.chunk_size(options.chunk_size)):
            logits_CV = head.logits(head.features[rows])
            loss, slopes_CV = _chunk_loss(logits_CV, targets_N[rows], options, any(needed))
            total += loss
            if any(needed):
                gradients.add(head, rows, slopes_CV.to(head.weight.dtype))
        ctx.save_for_backward(gradients.features, gradients.weight, gradients.bias)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (
            None if grad is None else grad * scale.to(grad.dtype) for grad in ctx.saved_tensors
        )
        return (*scaled, None, None)


def _chunk_loss(
    logits_CV: Tensor, targets_C: Tensor, options: _Options, with_slopes: bool
) -> tuple[Tensor, Tensor]:
    """Loss of a chunk and, written over the logits, its slope at the logits before the soft-cap."""
    smoothing, vocab_size = options.label_smoothing, logits_CV.shape[1]
    at_target_C = logits_CV.gather(1, targets_C[:, None]).squeeze(1)
    mean_C = logits_CV.mean(dim=1) if smoothing else at_target_C
    capped_CV = logits_CV.clone() if options.softcap is not None and with_slopes else None
    peak_C = logits_CV.amax(dim=1)
    slopes_CV = torch.softmax(logits_CV, dim=1, out=logits_CV)
    # With the peak taken off, the greatest probability is 1/Z: log Z needs no pass of its own.
    log_z_C = peak_C - slopes_CV.amax(dim=1).log()
    loss_C = log_z_C - (1.0 - smoothing) * at_target_C - smoothing * mean_C
    if options.z_loss:
        loss_C = loss_C + options.z_loss * log_z_C.square()
    if with_slopes:
        if options.z_loss:
            slopes_CV.mul_((1.0 + 2.0 * options.z_loss * log_z_C)[:, None])
        hit_C1 = torch.full_like(at_target_C, smoothing - 1.0)[:, None]
        slopes_CV.scatter_add_(1, targets_C[:, None], hit_C1)
        if smoothing:
            slopes_CV.sub_(smoothing / vocab_size)
        if capped_CV is not None and options.softcap is not None:
            slopes_CV.mul_(capped_CV.div_(options.softcap).square_().neg_().add_(1.0))
    return loss_C.sum(), slopes_CV


class _Gradients:
    """Gradients of features, weight and bias, grown chunk by chunk."""

    def __init__(
        self, features_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, needed: list[bool]
    ) -> None:
        self.features = torch.empty_like(features_ND) if needed[0] else None
        self.weight = torch.zeros_like(weight_VD) if needed[1] else None
        self.bias = torch.zeros_like(bias_V) if bias_V is not None and needed[2] else None

    def add(self, head: _Head, rows: slice, slopes_CV: Tensor) -> None:
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
        for rows in _chunks(out.shape[0], ROWS_AT_ONCE):
            out[rows].add_(product[rows])
