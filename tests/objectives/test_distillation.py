"""The chunked loss of distillation equals the slow twin's, and never holds all logits."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt4o_lit.objectives import (
    Lesson,
    Readout,
    Teacher,
    distillation_loss,
    linear_cross_entropy,
)
from gpt4o_lit.objectives.distillation import hidden_loss, logits_distillation_loss
from tests.objectives.test_loss import LargestTensor
from tests.reference.distillation import distillation_twin, hidden_twin, logits_of

NUM, DIM, VOCAB_SIZE = 24, 8, 13


def readout(
    dim: int = DIM,
    softcap: float | None = None,
    bias: bool = True,
    num: int = NUM,
    vocab_size: int = VOCAB_SIZE,
    dtype: torch.dtype = torch.float32,
) -> Readout:
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=dtype, requires_grad=True)

    return Readout(
        features=draw(num, dim),
        weight=draw(vocab_size, dim),
        bias=draw(vocab_size) if bias else None,
        softcap=softcap,
    )


def targets_of(num: int = NUM, vocab_size: int = VOCAB_SIZE) -> Tensor:
    targets_N = torch.randint(vocab_size, (num,))
    targets_N[::5] = -100
    return targets_N


def inputs_of(one: Readout) -> list[Tensor]:
    return [part for part in (one.features, one.weight, one.bias) if part is not None]


def plain(
    student: Readout, teacher: Readout, targets_N: Tensor, lesson: Lesson, smoothing: float = 0.0
) -> Tensor:
    """The twin's loss of two readouts."""
    said, ought = (
        [logits_of(row, each.weight, each.bias, each.softcap) for row in each.features]
        for each in (student, teacher)
    )
    ought = [row.detach() for row in ought]
    targets = targets_N.tolist()
    loss = distillation_twin(said, ought, targets, lesson.share, lesson.temperature, smoothing)
    if lesson.hidden:
        hidden = hidden_twin(student.features, teacher.features.detach(), targets)
        loss = loss + lesson.hidden * hidden
    return loss


LESSONS = [
    Lesson(),
    Lesson(share=0.3, temperature=2.5),
    Lesson(share=1.0, temperature=0.7),
    Lesson(share=0.0),
    Lesson(share=0.5, hidden=2.0),
]


@pytest.mark.parametrize("lesson", LESSONS, ids=str)
@pytest.mark.parametrize("chunk_size", [1, 7, None])
@pytest.mark.parametrize(
    ("of_student", "of_teacher"),
    [
        ({}, {}),
        ({"softcap": 3.0, "bias": False}, {"softcap": 2.0}),
        ({"softcap": 3.0}, {"bias": False}),
    ],
    ids=str,
)
def test_equals_the_slow_twin_in_value_and_slope(
    lesson: Lesson, chunk_size: int | None, of_student: dict[str, Any], of_teacher: dict[str, Any]
) -> None:
    student, teacher, targets_N = readout(**of_student), readout(**of_teacher), targets_of()
    ours, _ = distillation_loss(student, teacher, targets_N, lesson, chunk_size=chunk_size)
    theirs = plain(student, teacher, targets_N, lesson)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for mine, other in zip(
        torch.autograd.grad(ours * 0.25, inputs_of(student)),
        torch.autograd.grad(theirs * 0.25, inputs_of(student)),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lesson", LESSONS, ids=str)
def test_slopes_are_those_of_finite_differences(lesson: Lesson) -> None:
    sizes: dict[str, Any] = {"num": 7, "dim": 5, "vocab_size": 11, "dtype": torch.float64}
    student, teacher = readout(**sizes, softcap=4.0), readout(**sizes)
    targets_N = targets_of(7, 11)

    def loss(features_ND: Tensor, weight_VD: Tensor, bias_V: Tensor) -> Tensor:
        moved = replace(student, features=features_ND, weight=weight_VD, bias=bias_V)
        return distillation_loss(moved, teacher, targets_N, lesson, chunk_size=2)[0]

    assert torch.autograd.gradcheck(loss, tuple(inputs_of(student)))


@pytest.mark.parametrize("lesson", LESSONS, ids=str)
def test_smoothed_targets_are_the_twins_in_value_and_slope(lesson: Lesson) -> None:
    student, teacher, targets_N = readout(softcap=3.0), readout(), targets_of()
    ours, _ = distillation_loss(
        student, teacher, targets_N, lesson, label_smoothing=0.2, chunk_size=7
    )
    theirs = plain(student, teacher, targets_N, lesson, 0.2)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for mine, other in zip(
        torch.autograd.grad(ours, inputs_of(student)),
        torch.autograd.grad(theirs, inputs_of(student)),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lesson", LESSONS[:-1], ids=str)
@pytest.mark.parametrize("ruled_out", [False, True])
def test_logits_of_few_classes_teach_as_the_twin_does(lesson: Lesson, ruled_out: bool) -> None:
    smoothing = 0.0 if ruled_out else 0.1  # nothing may be spread over what is ruled out
    student_NC = torch.randn(NUM, 6, requires_grad=True)
    teacher_NC, targets_N = torch.randn(NUM, 6), targets_of(NUM, 4)
    hidden_NC = torch.zeros(NUM, 6, dtype=torch.bool)
    hidden_NC[:, 4:] = ruled_out
    said_NC, ought_NC = (
        each.masked_fill(hidden_NC, -float("inf")) for each in (student_NC, teacher_NC)
    )
    ours, parts = logits_distillation_loss(
        said_NC, ought_NC, targets_N, lesson, label_smoothing=smoothing
    )
    kept_C = slice(4 if ruled_out else 6)
    theirs = distillation_twin(
        [row[kept_C] for row in student_NC], [row[kept_C] for row in teacher_NC],
        targets_N.tolist(), lesson.share, lesson.temperature, smoothing,
    )  # fmt: skip
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    mine, other = (torch.autograd.grad(loss, student_NC)[0] for loss in (ours, theirs))
    torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)
    assert not parts.requires_grad


def test_logits_alone_have_no_hidden_states() -> None:
    logits_NC = torch.randn(3, 2)
    with pytest.raises(ValueError, match=r"hidden \(1.0\) compares features.*set hidden to 0"):
        logits_distillation_loss(logits_NC, logits_NC, torch.zeros(3).long(), Lesson(hidden=1.0))


def test_a_teacher_of_other_width_teaches() -> None:
    student, teacher, targets_N = readout(), readout(dim=3), targets_of()
    ours, parts = distillation_loss(student, teacher, targets_N, Lesson(share=1.0))
    torch.testing.assert_close(ours, plain(student, teacher, targets_N, Lesson(share=1.0)))
    assert parts.dtype == torch.float64
    assert parts.tolist() == [pytest.approx(ours.item()), 0.0]


def test_nothing_is_learned_from_oneself() -> None:
    student, targets_N = readout(softcap=3.0), targets_of()
    lesson = Lesson(share=1.0, temperature=2.0, hidden=1.0)
    loss, parts = distillation_loss(student, student, targets_N, lesson)
    assert parts.abs().max() <= 1e-5
    for grad in torch.autograd.grad(loss, inputs_of(student)):
        assert grad.abs().max() <= 1e-5


def test_without_a_share_it_is_the_plain_loss_to_the_bit() -> None:
    student, teacher, targets_N = readout(), readout(), targets_of()
    ours, _ = distillation_loss(student, teacher, targets_N, Lesson(share=0.0), chunk_size=5)
    plain_loss = linear_cross_entropy(
        student.features, student.weight, targets_N, bias=student.bias, chunk_size=5
    )
    torch.testing.assert_close(ours, plain_loss, atol=0, rtol=0)
    for mine, other in zip(
        torch.autograd.grad(ours, inputs_of(student)),
        torch.autograd.grad(plain_loss, inputs_of(student)),
        strict=True,
    ):
        assert torch.equal(mine, other)


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = readout(), readout()
    loss, parts = distillation_loss(student, teacher, targets_of(), Lesson(hidden=1.0))
    loss.backward()
    assert all(part.grad is None for part in inputs_of(teacher))
    assert not parts.requires_grad


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_all_logits_never_exist_at_once(temperature: float) -> None:
    num, vocab_size, chunk_size = 512, 1000, 64
    sizes: dict[str, Any] = {"num": num, "vocab_size": vocab_size, "bias": False}
    student, teacher, targets_N = readout(**sizes), readout(**sizes), targets_of(num, vocab_size)
    lesson = Lesson(temperature=temperature)
    with LargestTensor() as seen:
        distillation_loss(student, teacher, targets_N, lesson, chunk_size=chunk_size)[0].backward()
    assert seen.numel <= chunk_size * vocab_size


def test_without_grad_no_gradient_is_computed() -> None:
    student, teacher, targets_N = readout(), readout(), targets_of()
    with torch.no_grad(), LargestTensor() as seen:
        loss, _ = distillation_loss(student, teacher, targets_N, Lesson())
    assert not loss.requires_grad
    assert seen.num_products == 2


def test_autocast_gives_nearly_the_loss_of_float32() -> None:
    student, teacher, targets_N = readout(), readout(), targets_of()
    lesson = Lesson(temperature=2.0, hidden=1.0)
    exact, _ = distillation_loss(student, teacher, targets_N, lesson)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, _ = distillation_loss(student, teacher, targets_N, lesson, chunk_size=9)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, exact, rtol=1e-2, atol=0.0)
    inputs = inputs_of(student)
    for mine, other in zip(
        torch.autograd.grad(ours, inputs), torch.autograd.grad(exact, inputs), strict=True
    ):
        assert mine.dtype == other.dtype
        assert F.cosine_similarity(mine.flatten(), other.flatten(), dim=0) > 0.999


def test_nothing_asked_costs_nothing() -> None:
    student, teacher = readout(), readout()
    nothing_N = torch.full((NUM,), -100)
    loss, parts = distillation_loss(student, teacher, nothing_N, Lesson(hidden=1.0))
    loss.backward()
    assert loss.item() == 0.0
    assert not parts.any()
    assert all(part.grad is not None and not part.grad.any() for part in inputs_of(student))


def test_certain_teachers_and_students_have_a_finite_loss() -> None:
    student = Readout(features=torch.tensor([[200.0]]), weight=torch.tensor([[1.0], [-1.0]]))
    teacher = replace(student, features=-student.features)
    _, (soft, _) = distillation_loss(student, teacher, torch.tensor([0]), Lesson())
    assert soft.item() == pytest.approx(400.0)


def test_features_of_other_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"student \(width 8\) and the teacher \(width 4\).* to 0"):
        hidden_loss(torch.zeros(2, 8), torch.zeros(2, 4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 1.5}, r"share \(1.5\) must lie between 0 and 1"),
        ({"temperature": 0.0}, r"temperature \(0.0\) must be above 0; set it to 1"),
        ({"hidden": -1.0}, r"hidden \(-1.0\) must not be negative; set it to 0"),
    ],
)
def test_a_lesson_is_checked_on_birth(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Lesson(**settings)


def test_a_teacher_adds_up_what_it_was_asked() -> None:
    asked = Teacher(nn.Identity(), Lesson(hidden=0.5))
    assert not asked.was_asked
    student, teacher, targets_N = readout(), readout(), targets_of()
    expected, parts = distillation_loss(student, teacher, targets_N, asked.lesson)
    for _ in range(2):
        assert torch.equal(asked.loss(student, teacher, targets_N), expected)
    sums = asked.take_sums()
    torch.testing.assert_close(sums[:2], 2 * parts)
    assert sums[2] == 2 * (targets_N != -100).sum()
    assert not asked.was_asked
