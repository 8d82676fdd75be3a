"""Learning from a teacher again, one position at a time, from all logits."""

import torch
from torch import Tensor


def logits_of(
    features_D: Tensor, weight_VD: Tensor, bias_V: Tensor | None, softcap: float | None
) -> Tensor:
    """Of one position."""
    logits_V = weight_VD @ features_D
    if bias_V is not None:
        logits_V = logits_V + bias_V
    return logits_V if softcap is None else softcap * torch.tanh(logits_V / softcap)


def distillation_twin(
    students_NV: list[Tensor],
    teachers_NV: list[Tensor],
    targets: list[int],
    share: float,
    temperature: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Hinton's loss (arXiv:1503.02531), summed over the targets that are asked."""
    total = torch.zeros((), dtype=students_NV[0].dtype)
    for student_V, teacher_V, target in zip(students_NV, teachers_NV, targets, strict=True):
        if target == -100:
            continue
        costs_V = -torch.log(torch.softmax(student_V, 0))
        spread = costs_V[costs_V < float("inf")].mean()
        hard = (1 - label_smoothing) * costs_V[target] + label_smoothing * spread
        says = torch.softmax(student_V / temperature, 0)
        ought = torch.softmax(teacher_V / temperature, 0)
        divergence = sum(
            p * (torch.log(p) - torch.log(q)) for p, q in zip(ought, says, strict=True) if p
        )
        total = total + (1 - share) * hard + share * temperature**2 * divergence
    return total


def hidden_twin(students_ND: Tensor, teachers_ND: Tensor, targets: list[int]) -> Tensor:
    """Half the squared distance of states of length one, of the positions that are asked."""
    total = torch.zeros((), dtype=students_ND.dtype)
    for student_D, teacher_D, target in zip(students_ND, teachers_ND, targets, strict=True):
        if target != -100:
            apart_D = student_D / student_D.norm() - teacher_D / teacher_D.norm()
            total = total + apart_D.square().sum() / 2
    return total
