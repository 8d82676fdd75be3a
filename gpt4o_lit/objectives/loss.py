"""Cross-entropy of a linear head in chunks: the logits of all positions never exist at once.

Shapes: N positions, C positions of a chunk, D dim, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gpt4o_lit.objectives.chunks import (
    WHOLE,
    ChunkedHead,
    HeadGradients,
    VocabularyPart,
    asked,
    at_targets,
    chunks,
    come_first,
    log_sum_exp,
    normalize_,
)
from gpt4o_lit.objectives.objective import IGNORED


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
    part: VocabularyPart = WHOLE,
) -> Tensor:
    """Sum of the negative log-likelihoods, in nats, of the targets that are not ignored.

    Logits and their gradient are made once, by chunks, in the forward; the backward only scales.
    Follows autocast: products in its dtype, softmax in float32. `z_loss` adds that weight times
    log(Z)² (arXiv:2204.02311). The result is differentiable once. Where `part` says so, weight and
    bias are those of a part of the pieces, and the loss is that of all of them.
    """
    kept_N, targets_N = asked(targets_N, ignore_index)
    if kept_N is not None:
        features_ND = features_ND[kept_N]
    options = _Options(softcap, z_loss, label_smoothing, chunk_size, part, torch.is_grad_enabled())
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
    part: VocabularyPart = WHOLE,
) -> tuple[Tensor, Tensor]:
    """Per position the negative log-likelihood of its target, and whether the target comes first.

    Ignored positions give 0 and False. Both (N,); the first float32, or float64 for such input.
    """
    head = ChunkedHead(features_ND, weight_VD, bias, softcap)
    nll_N = torch.zeros(targets_N.shape, dtype=head.loss_dtype, device=targets_N.device)
    correct_N = torch.zeros(targets_N.shape, dtype=torch.bool, device=targets_N.device)
    kept_N, asked_M = asked(targets_N, ignore_index)
    nlls, corrects = [nll_N[:0]], [correct_N[:0]]
    features_MD = head.features if kept_N is None else head.features[kept_N]
    for rows in chunks(asked_M.shape[0], head.chunk_size(chunk_size)):
        logits_CV = head.logits(features_MD[rows])
        targets_C = asked_M[rows]
        corrects.append(come_first(logits_CV, targets_C, part))
        at_target_C, _, _ = at_targets(logits_CV, targets_C, part)
        logits_CV.sub_(at_target_C[:, None])
        nlls.append(log_sum_exp(logits_CV, part))
    if kept_N is None:
        return torch.cat(nlls), torch.cat(corrects)
    nll_N[kept_N], correct_N[kept_N] = torch.cat(nlls), torch.cat(corrects)
    return nll_N, correct_N


class _Options:
    """What the loss is told besides its tensors."""

    def __init__(
        self,
        softcap: float | None,
        z_loss: float,
        label_smoothing: float,
        chunk_size: int | None,
        part: VocabularyPart,
        with_gradients: bool,
    ) -> None:
        self.softcap = softcap
        self.z_loss = z_loss
        self.label_smoothing = label_smoothing
        self.chunk_size = chunk_size
        self.part = part
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
        head = ChunkedHead(features_ND, weight_VD, bias_V, options.softcap)
        needed = [options.with_gradients and need for need in ctx.needs_input_grad[:3]]
        gradients = HeadGradients(features_ND, weight_VD, bias_V, needed)
        total = torch.zeros((), dtype=head.loss_dtype, device=features_ND.device)
        for rows in chunks(targets_N.shape[0], head.chunk_size(options.chunk_size)):
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
    smoothing, part = options.label_smoothing, options.part
    vocab_size = logits_CV.shape[1] * part.size
    at_target_C, rows_C, here_C = at_targets(logits_CV, targets_C, part)
    mean_C = part.sum(logits_CV.sum(dim=1)) / vocab_size if smoothing else at_target_C
    capped_CV = logits_CV.clone() if options.softcap is not None and with_slopes else None
    log_z_C, slopes_CV = normalize_(logits_CV, part), logits_CV
    loss_C = log_z_C - (1.0 - smoothing) * at_target_C - smoothing * mean_C
    if options.z_loss:
        loss_C = loss_C + options.z_loss * log_z_C.square()
    if with_slopes:
        if options.z_loss:
            slopes_CV.mul_((1.0 + 2.0 * options.z_loss * log_z_C)[:, None])
        hit_C = here_C * torch.full_like(at_target_C, smoothing - 1.0)
        slopes_CV.scatter_add_(1, rows_C[:, None], hit_C[:, None])
        if smoothing:
            slopes_CV.sub_(smoothing / vocab_size)
        if capped_CV is not None and options.softcap is not None:
            slopes_CV.mul_(capped_CV.div_(options.softcap).square_().neg_().add_(1.0))
    return loss_C.sum(), slopes_CV
