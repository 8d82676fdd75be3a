"""Every objective equals its slow twin, and keeps what it promises of every draw."""

from collections import Counter
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from gpt4o_lit.objectives import (
    CausalLM,
    Draws,
    Example,
    MaskedLM,
    Objective,
    PrefixLM,
    SpanCorruption,
    Vocabulary,
)
from tests.reference.objective_twins import (
    causal_twin,
    fim_twin,
    masked_twin,
    prefix_twin,
    runs,
    spans_twin,
)

Windows = tuple[Tensor, Tensor]
EVERY = (
    CausalLM(),
    CausalLM(fim_rate=0.7),
    MaskedLM(),
    MaskedLM(whole_words=True),
    PrefixLM(),
    SpanCorruption(),
)


def seeded(seed: int = 3, rows: int = 16) -> Draws:
    return Draws((seed,), torch.arange(rows))


def bound(objective: Objective, vocabulary: Vocabulary) -> Objective:
    objective.bind(vocabulary)
    return objective


def test_causal_equals_its_twin(vocabulary: Vocabulary, windows: Windows) -> None:
    example = bound(CausalLM(), vocabulary).prepare(*windows, seeded())
    assert example.targets.tolist() == causal_twin(*windows)
    assert torch.equal(example.tokens, windows[0][:, :-1])
    assert torch.equal(example.documents, windows[1][:, :-1])


@pytest.mark.parametrize("spm_rate", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_fill_in_the_middle_equals_its_twin(
    vocabulary: Vocabulary, windows: Windows, rate: float, spm_rate: float
) -> None:
    objective = bound(CausalLM(fim_rate=rate, fim_spm_rate=spm_rate), vocabulary)
    example = objective.prepare(*windows, seeded())
    twin = torch.tensor(fim_twin(*windows, vocabulary, rate, spm_rate, seeded()))
    assert torch.equal(example.tokens, twin[:, :-1])
    assert example.targets.tolist() == causal_twin(twin, windows[1])
    assert (example.tokens == vocabulary.fim_ids["middle"]).any()


def test_fill_in_the_middle_moves_no_document(vocabulary: Vocabulary, windows: Windows) -> None:
    """Taking the marks away leaves pieces of that document alone, each as often as it had them."""
    example = bound(CausalLM(fim_rate=1.0), vocabulary).prepare(*windows, seeded())
    marks = set(vocabulary.fim_ids.values())
    for before, after, documents in zip(
        windows[0].tolist(), example.tokens.tolist(), windows[1].tolist(), strict=True
    ):
        for first, end in runs(documents):
            kept = Counter(token for token in after[first:end] if token not in marks)
            assert kept <= Counter(before[first:end])


@pytest.mark.parametrize("whole_words", [False, True])
@pytest.mark.parametrize("shares", [(0.15, 0.8, 0.1), (0.6, 0.3, 0.4), (1.0, 1.0, 0.0)])
def test_masked_equals_its_twin(
    vocabulary: Vocabulary,
    windows: Windows,
    whole_words: bool,
    shares: tuple[float, float, float],
) -> None:
    objective = MaskedLM(
        rate=shares[0], mask_share=shares[1], random_share=shares[2], whole_words=whole_words
    )
    example = bound(objective, vocabulary).prepare(*windows, seeded())
    tokens_BT, documents_BT = windows[0][:, :-1], windows[1][:, :-1]
    hidden, targets = masked_twin(
        tokens_BT, documents_BT, vocabulary, shares, whole_words, seeded()
    )
    assert example.tokens.tolist() == hidden
    assert example.targets.tolist() == targets


def test_masked_never_hides_or_invents_a_special_piece(
    vocabulary: Vocabulary, windows: Windows
) -> None:
    objective = MaskedLM(rate=1.0, mask_share=0.0, random_share=1.0)
    example = bound(objective, vocabulary).prepare(*windows, seeded())
    special_BT = torch.isin(windows[0][:, :-1], torch.tensor(vocabulary.special_ids))
    assert torch.equal(example.targets == -100, special_BT)
    assert torch.equal(torch.isin(example.tokens, torch.tensor(vocabulary.special_ids)), special_BT)


def test_masked_shares_are_as_told(vocabulary: Vocabulary) -> None:
    tokens_BT1 = torch.randint(7, 100, (64, 1025))
    example = bound(MaskedLM(), vocabulary).prepare(
        tokens_BT1, torch.zeros_like(tokens_BT1), seeded(rows=64)
    )
    asked_BT = example.targets != -100
    shown_M, true_M = example.tokens[asked_BT], example.targets[asked_BT]
    assert asked_BT.float().mean() == pytest.approx(0.15, abs=0.01)
    assert (shown_M == vocabulary.mask_id).float().mean() == pytest.approx(0.8, abs=0.02)
    assert (shown_M == true_M).float().mean() == pytest.approx(0.1, abs=0.02)


def test_prefix_equals_its_twin(vocabulary: Vocabulary, windows: Windows) -> None:
    example = bound(PrefixLM(), vocabulary).prepare(*windows, seeded())
    targets, prefix = prefix_twin(*windows, seeded())
    assert example.targets.tolist() == targets
    assert example.prefix is not None
    assert example.prefix.tolist() == prefix


def test_no_target_of_a_prefix_lm_stands_in_its_prefix(
    vocabulary: Vocabulary, windows: Windows
) -> None:
    example = bound(PrefixLM(), vocabulary).prepare(*windows, seeded())
    assert example.prefix is not None
    assert not ((example.targets[:, :-1] != -100) & example.prefix[:, 1:]).any()


@pytest.mark.parametrize(("rate", "mean_span"), [(0.15, 3.0), (0.5, 2.0), (0.3, 30.0), (0.9, 1.0)])
def test_span_corruption_equals_its_twin(
    vocabulary: Vocabulary, windows: Windows, rate: float, mean_span: float
) -> None:
    objective = SpanCorruption(rate=rate, mean_span=mean_span)
    example = bound(objective, vocabulary).prepare(*windows, seeded())
    counts = objective.span_counts(96)
    twin = spans_twin(windows[0][:, :-1], windows[1][:, :-1], vocabulary, *counts, seeded())
    for name, rows in twin.items():
        assert getattr(example, name).tolist() == rows, name


@pytest.mark.parametrize("seq_len", [2, 3, 10, 64, 512])
def test_span_lengths_follow_from_the_window(vocabulary: Vocabulary, seq_len: int) -> None:
    tokens_BT1 = torch.randint(7, 100, (4, seq_len + 1))
    objective = SpanCorruption()
    example = bound(objective, vocabulary).prepare(
        tokens_BT1, torch.zeros_like(tokens_BT1), seeded(rows=4)
    )
    num_hidden, num_spans = objective.span_counts(seq_len)
    assert example.source is not None
    assert example.source.shape == (4, seq_len - num_hidden + num_spans)
    assert example.targets.shape == example.tokens.shape == (4, num_hidden + num_spans + 1)
    assert (example.targets != -100).all()


def test_source_and_target_together_give_the_window_back(vocabulary: Vocabulary) -> None:
    tokens_BT1 = torch.randint(7, 100, (8, 129))
    example = bound(SpanCorruption(), vocabulary).prepare(
        tokens_BT1, torch.zeros_like(tokens_BT1), seeded(rows=8)
    )
    assert example.source is not None
    for window, source, said in zip(
        tokens_BT1[:, :-1].tolist(), example.source.tolist(), example.targets.tolist(), strict=True
    ):
        behind: dict[int, list[int]] = {}
        for token in said[:-1]:
            if token in vocabulary.sentinel_ids:
                current = behind.setdefault(token, [])
            else:
                current.append(token)
        restored = [piece for token in source for piece in behind.get(token, [token])]
        assert restored == window


@pytest.mark.parametrize("objective", EVERY, ids=repr)
def test_equal_seeds_give_equal_examples_and_others_do_not(
    vocabulary: Vocabulary, windows: Windows, objective: Objective
) -> None:
    bound(objective, vocabulary)
    one, same, other = (objective.prepare(*windows, seeded(seed)) for seed in (1, 1, 2))
    assert _equal(one, same)
    random = not isinstance(objective, CausalLM) or objective.fim_rate > 0
    assert _equal(one, other) is not random


@pytest.mark.parametrize("objective", EVERY, ids=repr)
def test_the_window_is_left_as_it_was(
    vocabulary: Vocabulary, windows: Windows, objective: Objective
) -> None:
    copies = [window.clone() for window in windows]
    bound(objective, vocabulary).prepare(*windows, seeded())
    assert all(torch.equal(*pair) for pair in zip(copies, windows, strict=True))


@pytest.mark.parametrize("objective", EVERY, ids=repr)
def test_padding_is_asked_nothing(
    vocabulary: Vocabulary, windows: Windows, objective: Objective
) -> None:
    example = bound(objective, vocabulary).prepare(*windows, seeded())
    assert (example.targets[example.documents == -1] == -100).all()


@pytest.mark.parametrize("objective", EVERY, ids=repr)
def test_a_run_is_judged_by_its_training_example_but_for_what_fim_rearranges(
    vocabulary: Vocabulary, windows: Windows, objective: Objective
) -> None:
    judged = bound(objective, vocabulary).prepare_evaluation(*windows, seeded())
    expected = CausalLM() if isinstance(objective, CausalLM) else objective
    assert _equal(judged, bound(expected, vocabulary).prepare(*windows, seeded()))


@pytest.mark.parametrize("objective", EVERY, ids=repr)
def test_targets_that_are_no_marks_are_pieces_of_the_window(
    vocabulary: Vocabulary, windows: Windows, objective: Objective
) -> None:
    example = bound(objective, vocabulary).prepare_evaluation(*windows, seeded())
    marks = torch.tensor(objective.mark_ids, dtype=torch.long)
    for window, targets in zip(windows[0], example.targets, strict=True):
        text = targets[(targets != -100) & ~torch.isin(targets, marks)]
        assert Counter(text.tolist()) <= Counter(window.tolist())
    if isinstance(objective, SpanCorruption):
        assert set(marks.tolist()) == {*vocabulary.sentinel_ids, vocabulary.bos_id, 2}


@pytest.mark.parametrize("objective", EVERY, ids=repr)
def test_lengths_are_those_of_an_example(vocabulary: Vocabulary, objective: Objective) -> None:
    """Of one long document without padding; what is asked, on average of 64 windows."""
    tokens_BT1 = torch.randint(7, 100, (64, 513))
    example = bound(objective, replace(vocabulary, sentinel_ids=tuple(range(110, 150)))).prepare(
        tokens_BT1, torch.zeros_like(tokens_BT1), seeded(rows=64)
    )
    lengths = objective.lengths(512)
    assert example.tokens.shape[1] == lengths.target
    assert (0 if example.source is None else example.source.shape[1]) == lengths.source
    asked = (example.targets != -100).sum(dim=1).float().mean().item()
    assert asked == pytest.approx(lengths.asked, rel=0.15)


@pytest.mark.parametrize(
    ("objective", "missing", "message"),
    [
        (CausalLM(fim_rate=0.5), {"fim_ids": {"prefix": 4}}, "fim_ids suffix, middle; train"),
        (MaskedLM(), {"mask_id": None}, "MaskedLM needs mask_id, which the tokenizer lacks; train"),
        (
            MaskedLM(whole_words=True),
            {"starts_word": None},
            "starts_word.*set whole_words to false",
        ),
        (MaskedLM(), {"special_ids": tuple(range(150))}, "needs an ordinary piece"),
        (SpanCorruption(), {"sentinel_ids": ()}, "SpanCorruption needs sentinel_ids"),
        (SpanCorruption(), {"pad_id": None}, "SpanCorruption needs pad_id"),
        (SpanCorruption(), {"eos_id": None}, "SpanCorruption needs eos_id"),
    ],
)
def test_bind_names_what_is_missing(
    vocabulary: Vocabulary, objective: Objective, missing: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        objective.bind(replace(vocabulary, **missing))  # type: ignore[arg-type]


def test_an_unbound_objective_says_so(windows: Windows) -> None:
    with pytest.raises(ValueError, match="CausalLM knows no vocabulary yet; call bind"):
        _ = CausalLM().vocabulary


def test_too_few_sentinels_are_named(vocabulary: Vocabulary, windows: Windows) -> None:
    objective = bound(SpanCorruption(mean_span=1.0, rate=0.5), vocabulary)
    with pytest.raises(ValueError, match=r"seq_len \(96\) asks for 48 spans.*40 sentinel_ids"):
        objective.prepare(*windows, seeded())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CausalLM(fim_rate=1.5), r"fim_rate \(1.5\) must lie between 0 and 1"),
        (lambda: MaskedLM(mask_share=0.8, random_share=0.3), "must not exceed 1 together"),
        (lambda: MaskedLM(rate=-0.1), r"rate \(-0.1\)"),
        (lambda: SpanCorruption(rate=0.0), r"rate \(0.0\) must lie between"),
        (lambda: SpanCorruption(mean_span=0.5), r"mean_span \(0.5\) must be at least 1"),
        (lambda: SpanCorruption().span_counts(1), r"seq_len \(1\) must be at least 2"),
    ],
)
def test_nonsense_is_refused_by_name(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()


def _equal(one: Example, other: Example) -> bool:
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in fields(Example)]
    return all(a is b is None or torch.equal(a, b) for a, b in pairs)
