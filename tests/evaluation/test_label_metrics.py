"""The scores of labels are scikit-learn's and torchmetrics', however the examples are cut."""

import warnings

import pytest
import torch
from torch import Tensor

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn import metrics as sklearn
from torchmetrics.functional.classification import multiclass_calibration_error

from gpt4o_lit.evaluation.label_metrics import (
    calibration_counts,
    calibration_error,
    class_scores,
    confusion_counts,
    entities,
    entity_counts,
    entity_scores,
    multi_label_counts,
    multi_label_scores,
)

CUTS = [(0, 1), (1, 40), (40, 40), (40, 67)]  # one part is a single example, and one is none


def classes(seed: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Targets, and predictions of which half are right."""
    dice = torch.Generator().manual_seed(seed)
    targets = torch.randint(num_classes, (67,), generator=dice)
    guesses = torch.randint(num_classes, (67,), generator=dice)
    return torch.where(torch.rand(67, generator=dice) < 0.5, targets, guesses), targets


@pytest.mark.parametrize("unseen", [0, 3])
@pytest.mark.parametrize("num_classes", [1, 2, 5, 40])
@pytest.mark.parametrize("seed", range(3))
def test_class_scores_are_those_of_scikit_learn(seed: int, num_classes: int, unseen: int) -> None:
    predictions, targets = classes(seed, num_classes)
    parts = [
        confusion_counts(predictions[a:b], targets[a:b], num_classes + unseen) for a, b in CUTS
    ]
    counts = confusion_counts(predictions, targets, num_classes + unseen)
    assert torch.equal(torch.stack(parts).sum(0), counts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a single class
        theirs = {
            "accuracy": sklearn.accuracy_score(targets, predictions),
            "macro_f1": sklearn.f1_score(targets, predictions, average="macro"),
            "matthews": sklearn.matthews_corrcoef(targets, predictions),
        }
    assert class_scores(counts) == pytest.approx(theirs)


def test_a_class_that_is_always_guessed_has_no_correlation() -> None:
    scores = class_scores(confusion_counts(torch.tensor([1, 1, 1]), torch.tensor([0, 1, 1]), 2))
    assert scores == pytest.approx({"accuracy": 2 / 3, "macro_f1": 0.4, "matthews": 0})


@pytest.mark.parametrize("num_classes", [2, 5, 40])
@pytest.mark.parametrize("sharpness", [0.1, 1, 5])
def test_calibration_error_is_that_of_torchmetrics(num_classes: int, sharpness: float) -> None:
    dice = torch.Generator().manual_seed(num_classes)
    logits = sharpness * torch.randn(67, num_classes, generator=dice)
    probabilities, (_, targets) = logits.softmax(-1), classes(0, num_classes)
    counts = torch.stack([calibration_counts(probabilities[a:b], targets[a:b]) for a, b in CUTS])
    theirs = multiclass_calibration_error(probabilities, targets, num_classes, n_bins=15)
    assert calibration_error(counts.sum(0)) == pytest.approx(float(theirs), abs=1e-5)


def test_the_edges_of_bins_belong_to_the_bin_below() -> None:
    confidence = torch.tensor([8 / 15, 1.0, 0.7], dtype=torch.float64)
    probabilities = torch.stack([confidence, 1 - confidence], 1)
    counts = calibration_counts(probabilities, torch.tensor([0, 0, 1]))
    assert counts[0].nonzero()[:, 0].tolist() == [7, 10, 14]
    assert counts[:, 10].tolist() == pytest.approx([1, 0.7, 0])
    assert calibration_error(counts) == pytest.approx((7 / 15 + 0 + 0.7) / 3)


@pytest.mark.parametrize("density", [0, 0.1, 0.5])
def test_multi_label_scores_are_those_of_scikit_learn(density: float) -> None:
    dice = torch.Generator().manual_seed(5)
    targets = torch.rand(67, 6, generator=dice) < density
    predictions = targets ^ (torch.rand(67, 6, generator=dice) < density / 3)
    targets[:, 3] = predictions[:, 3] = False  # a label that never occurs
    counts = torch.stack([multi_label_counts(predictions[a:b], targets[a:b]) for a, b in CUTS])
    theirs = {
        "micro_f1": sklearn.f1_score(targets, predictions, average="micro", zero_division=0),
        "macro_f1": sklearn.f1_score(targets, predictions, average="macro", zero_division=0),
        "subset_accuracy": sklearn.accuracy_score(targets, predictions),
    }
    assert multi_label_scores(counts.sum(0)) == pytest.approx(theirs)
    assert torch.equal(multi_label_counts(predictions.float(), targets.long()), counts.sum(0))


def test_labels_that_do_not_fit_are_refused() -> None:
    one, two = torch.tensor([1]), torch.tensor([0, 2])
    with pytest.raises(ValueError, match=r"shape \(1,\) and targets of shape \(2,\) must both be"):
        confusion_counts(one, two, 3)
    with pytest.raises(ValueError, match=r"targets \(2\) must be within 0 and 1; leave out"):
        confusion_counts(two % 2, two, 2)
    with pytest.raises(ValueError, match=r"predictions \(-100\) must be within 0 and 1"):
        confusion_counts(torch.tensor([-100]), one, 2)
    with pytest.raises(ValueError, match=r"must be \(N, C\) and \(N\); give one row"):
        calibration_counts(torch.ones(2, 3) / 3, one)
    with pytest.raises(ValueError, match=r"least -2, .* sum to 1; give softmax"):
        calibration_counts(torch.tensor([[-2.0, 3.0]]), one)
    with pytest.raises(ValueError, match="largest sum of a row nan"):
        calibration_counts(torch.tensor([[torch.nan, 1.0]]), one)
    with pytest.raises(ValueError, match=r"predictions \(0.3\) must be 0 or 1; compare logits"):
        multi_label_counts(torch.tensor([[0.3]]), torch.tensor([[1]]))
    with pytest.raises(ValueError, match=r"must both be \(N, L\)"):
        multi_label_counts(one, one)


def test_no_examples_have_no_score() -> None:
    none = torch.tensor([], dtype=torch.long)
    with pytest.raises(ValueError, match="0 examples are not defined; give at least 1"):
        class_scores(confusion_counts(none, none, 3))
    with pytest.raises(ValueError, match="0 examples"):
        calibration_error(calibration_counts(torch.ones(0, 3), none))
    with pytest.raises(ValueError, match="0 examples"):
        multi_label_scores(multi_label_counts(none.view(0, 4), none.view(0, 4)))


def slow_entities(tags: list[str]) -> set[tuple[str, int, int]]:
    """By conlleval's rules, word by word: where one begins, and how far its like goes on."""
    found = set()
    for start, tag in enumerate(tags):
        if tag == "O":
            continue
        kind, before = tag[2:], tags[start - 1] if start else "O"
        if tag[0] == "I" and before != "O" and before[2:] == kind:
            continue
        end = start + 1
        while end < len(tags) and tags[end] == f"I-{kind}":
            end += 1
        found.add((kind, start, end))
    return found


def test_entities_are_those_of_conlleval() -> None:
    generator = torch.Generator().manual_seed(0)
    names = ["O", "B-X", "I-X", "B-Y", "I-Y"]
    sums, counts = [0, 0, 0], torch.zeros(3, dtype=torch.int64)
    for _ in range(200):
        guess, target = (
            [names[n] for n in torch.randint(0, 5, (8,), generator=generator).tolist()]
            for _ in range(2)
        )
        assert set(entities(guess)) == slow_entities(guess)
        found, wanted = slow_entities(guess), slow_entities(target)
        sums = [a + b for a, b in zip(sums, map(len, (found & wanted, found, wanted)), strict=True)]
        counts += entity_counts(guess, target)
    assert counts.tolist() == sums
    precision, recall = sums[0] / sums[1], sums[0] / sums[2]
    f1 = entity_scores(counts)["entity_f1"]
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall))
    assert entity_scores(torch.zeros(3))["entity_f1"] == 0
    with pytest.raises(ValueError, match="2 tags and 1 targets must be equally many"):
        entity_counts(["O", "O"], ["O"])
