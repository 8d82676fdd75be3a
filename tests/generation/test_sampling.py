"""What top_k, top_p and min_p leave over equals slow twins; nonsense is refused."""

import pytest
import torch

from gpt4o_lit.generation import SamplingConfig, sample
from gpt4o_lit.generation.sampling import penalize, restrict


def kept(config: SamplingConfig, logits: torch.Tensor) -> list[set[int]]:
    return [set(torch.isfinite(row).nonzero()[:, 0].tolist()) for row in restrict(logits, config)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 1.0])
def test_top_p_keeps_the_fewest_likeliest_that_reach_p(seed: int, top_p: float) -> None:
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(seed)) * 2
    for row, ours in zip(logits, kept(SamplingConfig(top_p=top_p), logits), strict=True):
        probabilities, total, twin = row.softmax(-1), 0.0, set()
        for token in row.argsort(descending=True).tolist():
            if total >= top_p:
                break
            twin.add(token)
            total += probabilities[token].item()
        assert ours == twin or (top_p == 1.0 and twin <= ours)


@pytest.mark.parametrize("top_k", [1, 3, 20, 50])
def test_top_k_keeps_the_k_likeliest(top_k: int) -> None:
    logits = torch.randn(3, 20)
    for row, ours in zip(logits, kept(SamplingConfig(top_k=top_k), logits), strict=True):
        assert ours == set(row.argsort(descending=True)[:top_k].tolist())


def test_top_k_keeps_exactly_k_of_equal_scores() -> None:
    assert [len(row) for row in kept(SamplingConfig(top_k=2), torch.zeros(3, 9))] == [2, 2, 2]


@pytest.mark.parametrize("min_p", [0.05, 0.5, 1.0])
def test_min_p_keeps_what_is_likely_beside_the_likeliest(min_p: float) -> None:
    logits = torch.randn(3, 20)
    for row, ours in zip(logits, kept(SamplingConfig(min_p=min_p), logits), strict=True):
        likely = row.softmax(-1)
        assert ours == {i for i in range(20) if likely[i] >= min_p * likely.max()}


def test_a_penalty_makes_seen_tokens_less_likely_whatever_their_sign() -> None:
    logits = torch.tensor([[2.0, -2.0, 1.0]])
    seen = torch.tensor([[True, True, False]])
    assert penalize(logits, seen, 2.0).tolist() == [[1.0, -4.0, 1.0]]


def test_samples_follow_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]]).expand(20000, 3)
    config = SamplingConfig(temperature=0.5)
    seen = torch.zeros(20000, 3, dtype=torch.bool)
    drawn = sample(logits, config, [torch.Generator().manual_seed(0)] * 20000, seen)
    shares = drawn.bincount(minlength=3) / 20000
    torch.testing.assert_close(shares, (logits[0] / 0.5).softmax(-1), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": -1.0}, "0 is greedy"),
        ({"top_k": 0}, "leave it out"),
        ({"top_p": 1.5}, "above 0 and at most 1"),
        ({"max_new_tokens": 0}, "at least 1"),
        ({"repetition_penalty": 0.0}, "1 is none"),
        ({"stop": ("a", "")}, "empty string"),
    ],
)
def test_nonsense_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**fields)
