"""Learning from a teacher beside the targets, in chunks: all logits never exist at once.

Shapes: N positions, C positions of a chunk, D dim, V vocabulary.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gpt4o_lit.objectives.chunks import ChunkedHead, HeadGradients, asked, chunks, normalize_
from gpt4o_lit.objectives.objective import IGNORED, require_share


@dataclass(frozen=True, kw_only=True)
class Readout:
    """What a network's logits are made of: soft-capped features times weight, plus bias."""

    features: Tensor
    """(N, D) what the output matrix is applied to."""
    weight: Tensor
    """(V, D) the output matrix."""
    bias: Tensor | None = None
    """(V,)"""
    softcap: float | None = None
    """Logits are bent to stay within this, on both sides."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """How much is learned from a teacher, and how much from the targets."""

    share: float = 0.5
    """Of the teacher's distribution in the loss; what is left is the targets'."""
    temperature: float = 1.0
    """Divides the logits of both; above 1 what is unlikely counts more (arXiv:1503.02531)."""
    hidden: float = 0.0
    """Weight of 1 - cosine between the features of both (arXiv:1910.01108)."""

    def __post_init__(self) -> None:
        require_share("share", self.share)
        if self.temperature <= 0:
            raise ValueError(f"temperature ({self.temperature}) must be above 0; set it to 1")
        if self.hidden < 0:
            raise ValueError(f"hidden ({self.hidden}) must not be negative; set it to 0")


class Teacher:
    """A network to learn from, and the sums of what not being like it has cost.

    No module, so that a task that holds one neither trains nor saves it.

    Args:
        network: In evaluation mode, and where its student is.
        lesson: What is learned from it.
    """

    def __init__(self, network: nn.Module, lesson: Lesson) -> None:
        self.network: Any = network
        self.lesson = lesson
        self._sums: Tensor | None = None

    def loss(
        self,
        student: Readout,
        teacher: Readout,
        targets_N: Tensor,
        *,
        share: float | None = None,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """What is learned by, a sum over the targets; its parts are remembered.

        Args:
            share: In place of the lesson's.
            label_smoothing: Share of each target that is spread over all classes.
        """
        lesson = self.lesson if share is None else replace(self.lesson, share=share)
        total, parts = distillation_loss(
            student, teacher, targets_N, lesson, label_smoothing=label_smoothing
        )
        self._remember(parts, targets_N)
        return total

    def loss_of_logits(
        self,
        student_NC: Tensor,
        teacher_NC: Tensor,
        targets_N: Tensor,
        *,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """The same of few classes, whose logits are there."""
        total, parts = logits_distillation_loss(
            student_NC, teacher_NC, targets_N, self.lesson, label_smoothing=label_smoothing
        )
        self._remember(parts, targets_N)
        return total

    @property
    def was_asked(self) -> bool:
        """Whether anybody has learned from it since the sums were taken."""
        return self._sums is not None

    def take_sums(self) -> Tensor:
        """Soft loss, hidden loss and targets (3,) since the last time."""
        assert self._sums is not None, "nobody has asked the teacher"
        sums, self._sums = self._sums, None
        return sums

    def _remember(self, parts: Tensor, targets_N: Tensor) -> None:
        sums = torch.stack([*parts, (targets_N != IGNORED).sum()])
        self._sums = sums if self._sums is None else self._sums + sums


@torch.compiler.disable
def distillation_loss(
    student: Readout,
    teacher: Readout,
    targets_N: Tensor,
    lesson: Lesson,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int = IGNORED,
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum over the targets that are not ignored of what a student is to be taught by.

    Cross-entropy with the target and, weighted by `share`, T² KL(teacher || student) at temperature
    T: the square keeps the slopes as large at any T (arXiv:1503.02531). One pass over the student's
    logits makes both and their gradient. Follows autocast as `linear_cross_entropy` does.

    Returns:
        The loss, which is differentiable once, by the student; and (2,) its soft and hidden part,
        unweighted, in float64.
    """
    kept_N, targets_N = asked(targets_N, ignore_index)
    features, taught = student.features, teacher.features.detach()
    if kept_N is not None:
        features, taught = features[kept_N], taught[kept_N]
    options = _Options(
        lesson, student.softcap, label_smoothing, chunk_size, torch.is_grad_enabled()
    )
    head = ChunkedHead(taught, teacher.weight, teacher.bias, teacher.softcap)
    loss, (_, soft) = _Distillation.apply(
        features, student.weight, student.bias, head, targets_N, options
    )
    hidden = torch.zeros_like(soft)
    if lesson.hidden:
        hidden = hidden_loss(features, taught)
        loss = loss + lesson.hidden * hidden
    return loss, torch.stack([soft, hidden.detach()]).double()


def logits_distillation_loss(
    student_NC: Tensor,
    teacher_NC: Tensor,
    targets_N: Tensor,
    lesson: Lesson,
    *,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """`distillation_loss` of few classes, whose logits are there; what both rule out is -inf.

    Raises:
        ValueError: the lesson wants hidden states compared, and there are none.
    """
    if lesson.hidden:
        raise ValueError(
            f"hidden ({lesson.hidden}) compares features, but this task shows its logits alone; "
            "set hidden to 0"
        )
    student_NC, teacher_NC, heat = student_NC.float(), teacher_NC.float(), lesson.temperature
    hard = F.cross_entropy(
        student_NC, targets_N, reduction="sum", label_smoothing=label_smoothing,
        ignore_index=IGNORED,
    )  # fmt: skip
    asked_N = targets_N != IGNORED
    says_NC = (student_NC[asked_N] / heat).log_softmax(1)
    ought_NC = (teacher_NC[asked_N] / heat).log_softmax(1)
    apart_NC = (ought_NC - says_NC).masked_fill(ought_NC == -float("inf"), 0.0)
    soft = heat**2 * (ought_NC.exp() * apart_NC).sum()
    parts = torch.stack([soft.detach(), torch.zeros_like(soft)]).double()
    return torch.lerp(hard, soft, lesson.share), parts


def hidden_loss(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """Sum of 1 - cosine: half the squared distance of normalized features (arXiv:1910.01108).

    Raises:
        ValueError: the two have other widths.
    """
    widths = student_ND.shape[1], teacher_ND.shape[1]
    if widths[0] != widths[1]:
        raise ValueError(
            f"hidden compares features of the student (width {widths[0]}) and the teacher (width "
            f"{widths[1]}), which must be equally wide; set hidden to 0"
        )
    dtype = torch.promote_types(student_ND.dtype, torch.float32)
    cosine_N = F.cosine_similarity(student_ND.to(dtype), teacher_ND.to(dtype), dim=1)
    return (1 - cosine_N).sum()


@dataclass(frozen=True)
class _Options:
    """What the loss is told besides its tensors."""

    lesson: Lesson
    softcap: float | None
    label_smoothing: float
    chunk_size: int | None
    with_gradients: bool


class _Distillation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        teacher: ChunkedHead,
        targets_N: Tensor,
        options: _Options,
    ) -> tuple[Tensor, Tensor]:
        head = ChunkedHead(features_ND, weight_VD, bias_V, options.softcap)
        needed = [options.with_gradients and need for need in ctx.needs_input_grad[:3]]
        gradients = HeadGradients(features_ND, weight_VD, bias_V, needed)
        sums = torch.zeros(2, dtype=head.loss_dtype, device=features_ND.device)
        for rows in chunks(targets_N.shape[0], head.chunk_size(options.chunk_size)):
            logits_CV = head.logits(head.features[rows])
            taught_CV = teacher.logits(teacher.features[rows])
            losses, slopes_CV = _chunk_losses(logits_CV, taught_CV, targets_N[rows], options)
            sums += losses
            if any(needed):
                gradients.add(head, rows, slopes_CV.to(head.weight.dtype))
        ctx.save_for_backward(gradients.features, gradients.weight, gradients.bias)
        ctx.mark_non_differentiable(sums)
        hard, soft = sums
        return torch.lerp(hard, soft, options.lesson.share), sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (
            None if grad is None else grad * scale.to(grad.dtype) for grad in ctx.saved_tensors
        )
        return (*scaled, None, None, None)


def _chunk_losses(
    student_CV: Tensor, teacher_CV: Tensor, targets_C: Tensor, options: _Options
) -> tuple[Tensor, Tensor]:
    """Hard and soft loss of a chunk and, written over the student's logits, the slope of both."""
    share, heat = options.lesson.share, options.lesson.temperature
    targets_C1, smoothing = targets_C[:, None], options.label_smoothing
    at_target_C = student_CV.gather(1, targets_C1).squeeze(1)
    wanted_C = at_target_C
    if smoothing:
        wanted_C = torch.lerp(at_target_C, student_CV.mean(dim=1), smoothing)
    bend_CV = None
    if options.softcap is not None:
        bend_CV = (student_CV / options.softcap).square_().neg_().add_(1.0)
    warm_CV = student_CV if heat == 1 else student_CV / heat
    teacher_CV.div_(heat)
    apart_CV = teacher_CV - warm_CV
    log_z_C, taught_log_z_C = normalize_(student_CV), normalize_(teacher_CV)
    warm_log_z_C = log_z_C if heat == 1 else normalize_(warm_CV)
    kl_C = apart_CV.mul_(teacher_CV).sum(dim=1) - taught_log_z_C + warm_log_z_C
    if heat == 1:
        slopes_CV = student_CV.sub_(teacher_CV, alpha=share)
    else:
        slopes_CV = student_CV.mul_(1 - share).add_(warm_CV.sub_(teacher_CV), alpha=share * heat)
    hit_C1 = torch.full_like(at_target_C, (share - 1) * (1 - smoothing))[:, None]
    slopes_CV.scatter_add_(1, targets_C1, hit_C1)
    if smoothing:
        slopes_CV.sub_((1 - share) * smoothing / slopes_CV.shape[1])
    if bend_CV is not None:
        slopes_CV.mul_(bend_CV)
    return torch.stack([(log_z_C - wanted_C).sum(), heat**2 * kl_C.sum()]), slopes_CV
