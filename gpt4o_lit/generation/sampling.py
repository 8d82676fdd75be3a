"""From scores to the next token."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt4o_lit.generation.constraint import Pattern

# B batch, V vocab


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the next token is chosen, and when to stop."""

    max_new_tokens: int = 128
    """Most tokens to write."""
    temperature: float = 0.8
    """Below 1: more certain; 0: always the likeliest token (greedy)."""
    top_k: int | None = None
    """Choose among the k likeliest tokens alone."""
    top_p: float | None = None
    """Choose among the likeliest tokens that together have this probability (arXiv:1904.09751)."""
    min_p: float | None = None
    """Leave out tokens less likely than this share of the likeliest (arXiv:2407.01082)."""
    repetition_penalty: float = 1.0
    """Above 1: tokens that were there already become less likely (arXiv:1909.05858)."""
    stop: tuple[str, ...] = ()
    """Stop before any of these strings."""
    stop_ids: tuple[int, ...] = ()
    """Stop at any of these tokens, as at eos."""
    pattern: Pattern | None = None
    """What the whole text must match."""
    int8_cache: bool = False
    """Keep keys and values as whole numbers of 8 bits: a quarter of the memory."""
    seed: int = 0
    """Of the choice; the same seed writes the same text behind the same number of a prompt."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens ({self.max_new_tokens}) must be at least 1")
        if self.temperature < 0:
            raise ValueError(f"temperature ({self.temperature}) must not be negative; 0 is greedy")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k ({self.top_k}) must be at least 1; leave it out for all")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name} ({value}) must be above 0 and at most 1; try 0.9")
        if self.repetition_penalty <= 0:
            raise ValueError(
                f"repetition_penalty ({self.repetition_penalty}) must be above 0; 1 is none"
            )
        if "" in self.stop:
            raise ValueError("stop holds an empty string, which is everywhere; leave it out")


def sample(
    logits_BV: Tensor,
    config: SamplingConfig,
    generators: Sequence[torch.Generator],
    seen_BV: Tensor,
) -> Tensor:
    """The next token of each row by its own generator: (B,).

    `seen_BV` is True for tokens that were there already.
    """
    if config.repetition_penalty != 1.0:
        logits_BV = penalize(logits_BV, seen_BV, config.repetition_penalty)
    if config.temperature == 0:
        return logits_BV.argmax(-1)
    rows = zip(distribution(logits_BV, config), generators, strict=True)
    return torch.cat([torch.multinomial(row, 1, generator=generator) for row, generator in rows])


def distribution(logits_BV: Tensor, config: SamplingConfig) -> Tensor:
    """Probabilities (B, V) that tokens are drawn by, penalties aside; 0 and 1 if greedy."""
    if config.temperature == 0:
        return torch.zeros_like(logits_BV).scatter(1, logits_BV.argmax(-1, keepdim=True), 1.0)
    return restrict(logits_BV / config.temperature, config).softmax(-1)


def penalize(logits_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Divide positive scores of seen tokens by the penalty, multiply negative ones."""
    penalized = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return torch.where(seen_BV, penalized, logits_BV)


def restrict(logits_BV: Tensor, config: SamplingConfig) -> Tensor:
    """Set the scores of what top_k, top_p and min_p leave out to minus infinity."""
    if config.top_k is not None and config.top_k < logits_BV.shape[-1]:
        kept = logits_BV.topk(config.top_k)  # exactly k, also where scores are equal
        nothing_BV = torch.full_like(logits_BV, float("-inf"))
        logits_BV = nothing_BV.scatter(1, kept.indices, kept.values)
    if config.top_p is not None:
        ordered, indices = logits_BV.softmax(-1).sort(descending=True)
        before = ordered.cumsum(-1) - ordered
        out = torch.zeros_like(before, dtype=torch.bool).scatter(1, indices, before >= config.top_p)
        logits_BV = logits_BV.masked_fill(out, float("-inf"))
    if config.min_p is not None:
        probability = logits_BV.softmax(-1)
        least = config.min_p * probability.amax(-1, keepdim=True)
        logits_BV = logits_BV.masked_fill(probability < least, float("-inf"))
    return logits_BV
