"""How right labels are, from counts that add up over batches and ranks.

All scores here run from 0 to 1 (Matthews correlation from -1), as scikit-learn gives them; those
of `text_metrics` run from 0 to 100.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

# N examples, C classes, L labels, B bins

NUM_BINS = 15
"""Of equal width, for the calibration error."""


def confusion_counts(predictions_N: Tensor, targets_N: Tensor, num_classes: int) -> Tensor:
    """How often each class was taken for each (C, C; int64): row the target, column the guess.

    Raises:
        ValueError: shapes differ or are not (N), or a class is not within 0 and num_classes - 1.
    """
    _check_shapes(predictions_N, targets_N, "(N)", 1)
    for name, classes_N in (("predictions", predictions_N), ("targets", targets_N)):
        _check_classes(name, classes_N, num_classes)
    places_N = targets_N.long() * num_classes + predictions_N.long()
    return places_N.bincount(minlength=num_classes**2).view(num_classes, num_classes)


def class_scores(confusion_CC: Tensor) -> dict[str, float]:
    """Accuracy, macro-F1 and Matthews correlation, from the sum of `confusion_counts`.

    Macro-F1 is the mean over the classes that occur as a target or a prediction. The correlation
    (Gorodkin's R_K where classes are more than two) is 0 where all targets or all predictions are
    of one class.

    Raises:
        ValueError: the counts are of no examples.
    """
    counts_CC = confusion_CC.double()
    total = float(counts_CC.sum())
    _check_examples(total)
    right_C, guessed_C, asked_C = counts_CC.diagonal(), counts_CC.sum(0), counts_CC.sum(1)
    occurs_C = guessed_C + asked_C > 0
    f1_C = 2 * right_C / (guessed_C + asked_C)
    covariance = float(right_C.sum() * total - guessed_C @ asked_C)
    spread = float((total**2 - guessed_C @ guessed_C) * (total**2 - asked_C @ asked_C))
    return {
        "accuracy": float(right_C.sum()) / total,
        "macro_f1": float(f1_C[occurs_C].mean()),
        "matthews": covariance / spread**0.5 if spread else 0.0,
    }


def calibration_counts(probabilities_NC: Tensor, targets_N: Tensor) -> Tensor:
    """For each bin of confidence its examples, the sum of their confidence, and how many are right.

    Returns:
        (3, B) in float64. A bin is open below and closed above: (0, 1/15], ..., (14/15, 1].

    Raises:
        ValueError: shapes do not fit, a row is no distribution, or a target is none of its classes.
    """
    if probabilities_NC.ndim != 2 or probabilities_NC.shape[:1] != targets_N.shape:
        raise ValueError(
            f"probabilities of shape {tuple(probabilities_NC.shape)} and targets of shape "
            f"{tuple(targets_N.shape)} must be (N, C) and (N); give one row for each target"
        )
    _check_classes("targets", targets_N, probabilities_NC.shape[1])
    sums_N = probabilities_NC.double().sum(1)
    if not ((probabilities_NC >= 0).all() and ((sums_N - 1).abs() < 0.02).all()):
        raise ValueError(
            f"probabilities (least {float(probabilities_NC.min()):.3g}, largest sum of a row "
            f"{float(sums_N.max()):.3g}) must be at least 0 and sum to 1; give softmax(logits)"
        )
    confidence_N, predictions_N = probabilities_NC.double().max(1)
    edges = torch.linspace(0, 1, NUM_BINS + 1, dtype=torch.float64, device=confidence_N.device)
    bins_NB = one_hot(torch.bucketize(confidence_N, edges[1:-1]), NUM_BINS).double()
    right_N = (predictions_N == targets_N).double()
    return torch.stack([torch.ones_like(right_N), confidence_N, right_N]) @ bins_NB


def calibration_error(calibration_3B: Tensor) -> float:
    """Expected calibration error (arXiv:1706.04599), from the sum of `calibration_counts`.

    How far confidence and accuracy are apart in a bin, in the mean over the examples; lower is
    better.

    Raises:
        ValueError: the counts are of no examples.
    """
    examples_B, confidence_B, right_B = calibration_3B.double()
    _check_examples(float(examples_B.sum()))
    return float((right_B - confidence_B).abs().sum() / examples_B.sum())


def multi_label_counts(predictions_NL: Tensor, targets_NL: Tensor) -> Tensor:
    """Where each example may have several labels, or none; true or 1 where it has one.

    Returns:
        (3 L + 2) in int64: true positives, false positives and false negatives of each label, then
        the examples with all labels right, and all examples.

    Raises:
        ValueError: shapes differ or are not (N, L), or a value is neither 0 nor 1.
    """
    _check_shapes(predictions_NL, targets_NL, "(N, L)", 2)
    for name, values_NL in (("predictions", predictions_NL), ("targets", targets_NL)):
        wrong = values_NL[(values_NL != 0) & (values_NL != 1)]
        if len(wrong):
            raise ValueError(
                f"{name} ({float(wrong[0]):.3g}) must be 0 or 1; compare logits with a threshold"
            )
    guessed_NL, asked_NL = predictions_NL.bool(), targets_NL.bool()
    parts = (guessed_NL & asked_NL, guessed_NL & ~asked_NL, ~guessed_NL & asked_NL)
    exact = (guessed_NL == asked_NL).all(1).sum()
    return torch.cat(
        [*(part_NL.sum(0) for part_NL in parts), exact[None], exact.new_tensor([len(asked_NL)])]
    )


def multi_label_scores(counts: Tensor) -> dict[str, float]:
    """Micro-F1, macro-F1 and subset accuracy, from the sum of `multi_label_counts`.

    Micro-F1 counts all labels alike, macro-F1 is the mean over labels, where one that never occurs
    counts 0. Subset accuracy is the share of examples with all labels right.

    Raises:
        ValueError: the counts are of no examples.
    """
    exact, examples = counts[-2:].tolist()
    _check_examples(examples)
    parts_3L = counts[:-2].view(3, -1).double()
    return {
        "micro_f1": float(_f1(parts_3L.sum(1))),
        "macro_f1": float(_f1(parts_3L).mean()),
        "subset_accuracy": exact / examples,
    }


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Kind, first word and the word behind the last of each entity in BIO tags, as conlleval has
    them: an I without its like before it begins one too."""
    found: list[tuple[str, int, int]] = []
    kind, start = "", 0
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        goes_on = prefix in ("I", "E", "M") and name == kind
        if kind and not goes_on:
            found.append((kind, start, place))
            kind = ""
        if not goes_on and prefix != "O" and name:
            kind, start = name, place
    return found


def are_entities(classes: Sequence[str]) -> bool:
    """Whether these are tags of entities: O, and others with a prefix."""
    others = [name for name in classes if name != "O"]
    return "O" in classes and all(name[:2] in ("B-", "I-", "E-", "S-", "M-") for name in others)


def entity_counts(guessed: Sequence[str], asked: Sequence[str]) -> Tensor:
    """Of one sentence: entities that are right, guessed and asked, (3,) in int64.

    Raises:
        ValueError: one has more tags than the other.
    """
    if len(guessed) != len(asked):
        raise ValueError(
            f"{len(guessed)} tags and {len(asked)} targets must be equally many; give a tag for "
            "each word"
        )
    found, wanted = set(entities(guessed)), set(entities(asked))
    return torch.tensor([len(found & wanted), len(found), len(wanted)])


def entity_scores(counts_3: Tensor) -> dict[str, float]:
    """Precision, recall and F1 of whole entities, as conlleval has them (arXiv:cs/0306050), from
    the sum of `entity_counts`; 0 where there is none."""
    right, guessed, asked = counts_3.double().tolist()
    return {
        "entity_precision": right / guessed if guessed else 0.0,
        "entity_recall": right / asked if asked else 0.0,
        "entity_f1": 2 * right / (guessed + asked) if guessed + asked else 0.0,
    }


def _f1(parts: Tensor) -> Tensor:
    positives, false_positives, false_negatives = parts
    # Where the sum is 0 so are the true positives, and any other divisor gives 0.
    return 2 * positives / (2 * positives + false_positives + false_negatives).clamp(min=1)


def _check_shapes(predictions: Tensor, targets: Tensor, shape: str, num_axes: int) -> None:
    if predictions.shape != targets.shape or targets.ndim != num_axes:
        raise ValueError(
            f"predictions of shape {tuple(predictions.shape)} and targets of shape "
            f"{tuple(targets.shape)} must both be {shape}; give one prediction for each target"
        )


def _check_classes(name: str, classes_N: Tensor, num_classes: int) -> None:
    wrong = classes_N[(classes_N < 0) | (classes_N >= num_classes)]
    if len(wrong):
        raise ValueError(
            f"{name} ({int(wrong[0])}) must be within 0 and {num_classes - 1}; leave out examples "
            "that have no class"
        )


def _check_examples(total: float) -> None:
    if not total:
        raise ValueError("scores of 0 examples are not defined; give at least 1")
