"""The next tokens of some prompts, step by step, with a cache of keys and values."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Protocol

import torch
from torch import Tensor

from gpt4o_lit.generation.constraint import Constraint
from gpt4o_lit.generation.prefill import (
    PLAIN,
    Group,
    Prompt,
    PromptFormat,
    group_prompts,
    num_pieces,
    prefill,
)
from gpt4o_lit.generation.sampling import SamplingConfig, sample
from gpt4o_lit.generation.step import Step
from gpt4o_lit.model import Transformer
from gpt4o_lit.tokenizer import Tokenizer

# B batch, D dim, V vocab


class Engine(Protocol):
    """Whatever else can write behind one prompt with the decoder (interop.engines)."""

    def read(self, ids: Sequence[int]) -> Tensor:
        """Start anew with these tokens; scores of what follows, float32 (V,)."""
        ...

    def write(self, token: int) -> Tensor:
        """Scores behind one more token, float32 (V,)."""
        ...


@torch.inference_mode()
def decode(
    transformer: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    config: SamplingConfig,
    *,
    prompt_format: PromptFormat = PLAIN,
    first: int = 0,
    compiled: bool = False,
    engine: Engine | None = None,
) -> Iterator[list[int | None]]:
    """One new token per prompt and step; None for a prompt that has come to the context's end.

    What is written behind a prompt depends on its number and the seed, not on its neighbours.

    Args:
        first: Number of the first prompt, where these are a part of a longer list.
        compiled: Compile the steps behind the prompt (see `Step`).
        engine: Computes in the network's place; it writes behind one prompt at a time.

    Raises:
        ValueError: a prompt is longer than the context, the network is an encoder alone, or there
            are several prompts for an engine.
    """
    if engine is not None and len(prompts) > 1:
        raise ValueError(
            f"an engine writes behind one prompt at a time; give it one of the {len(prompts)}"
        )
    limit = config.max_new_tokens
    groups = group_prompts(transformer, tokenizer, prompts, prompt_format, limit)
    constraint = None if config.pattern is None else Constraint(tokenizer, config.pattern)
    size = num_pieces(transformer, tokenizer)
    step = Step(transformer, size, compiled=compiled)

    def scorer() -> _Scorer:
        if engine is not None:
            return _EngineScorer(engine, size)
        return _NetworkScorer(step, tokenizer, config, prompt_format.bidirectional)

    writers = [
        _write(scorer(), transformer, tokenizer, group, config, constraint, first)
        for group in groups
    ]
    for parts in zip_longest(*writers, fillvalue=()):
        step_B: list[int | None] = [None] * len(prompts)
        for group, tokens in zip(groups, parts, strict=True):
            for row, token in zip(group.numbers, tokens, strict=False):
                step_B[row] = token
        yield step_B


class _Scorer(Protocol):
    """Scores (B, V) of what follows each row, float32."""

    def read(self, group: Group) -> Tensor:
        """Behind the prompts."""
        ...

    def write(self, next_B: Tensor) -> Tensor:
        """Behind one more token of each."""
        ...


class _NetworkScorer:
    def __init__(
        self, step: Step, tokenizer: Tokenizer, config: SamplingConfig, bidirectional: bool
    ) -> None:
        self.step, self.tokenizer = step, tokenizer
        self.bidirectional, self.int8_cache = bidirectional, config.int8_cache

    def read(self, group: Group) -> Tensor:
        self.cache, hidden_BD = prefill(
            self.step, self.tokenizer, group,
            bidirectional=self.bidirectional, int8_cache=self.int8_cache,
        )  # fmt: skip
        return self.step.scores(hidden_BD)

    def write(self, next_B: Tensor) -> Tensor:
        return self.step(next_B[:, None], self.cache)[:, -1]


class _EngineScorer:
    def __init__(self, engine: Engine, num_pieces: int) -> None:
        self.engine, self.num_pieces = engine, num_pieces

    def read(self, group: Group) -> Tensor:
        return self.engine.read(group.rows[0])[None, : self.num_pieces]

    def write(self, next_B: Tensor) -> Tensor:
        return self.engine.write(int(next_B))[None, : self.num_pieces]


def _write(
    scorer: _Scorer,
    transformer: Transformer,
    tokenizer: Tokenizer,
    group: Group,
    config: SamplingConfig,
    constraint: Constraint | None,
    first: int,
) -> Iterator[list[int]]:
    """One new token per row and step; every row has room for all steps."""
    logits_BV = scorer.read(group)
    device, pieces = logits_BV.device, logits_BV.shape[-1]
    every_B = torch.arange(len(group.rows), device=device)
    seen_BV = torch.zeros(len(group.rows), pieces, dtype=torch.bool, device=device)
    # What an encoder-decoder answers is a text of its own, and starts with pad.
    shown = group.rows if transformer.encoder is None else [[tokenizer.pad_id]] * len(group.rows)
    for row, ids in enumerate(shown):
        seen_BV[row, ids] = True
    generators = [prompt_generator(config.seed, first + number, device) for number in group.numbers]
    matchers = [] if constraint is None else [constraint.start() for _ in group.rows]
    for left in reversed(range(group.steps)):
        if matchers:
            allowed_BV = torch.stack([matcher.allowed() for matcher in matchers])
            logits_BV = logits_BV.masked_fill(~allowed_BV[:, :pieces].to(device), float("-inf"))
        next_B = sample(logits_BV, config, generators, seen_BV)
        tokens = next_B.tolist()
        for matcher, token in zip(matchers, tokens, strict=False):
            matcher.read([token])
        yield tokens
        if left:
            if config.repetition_penalty != 1.0:
                seen_BV[every_B, next_B] = True
            logits_BV = scorer.write(next_B)


def prompt_generator(seed: int, number: int, device: torch.device) -> torch.Generator:
    """One per prompt: its choices are its own, however many are written beside it."""
    # Mixed, for a generator of the CPU reads the lower 32 bits of its seed alone.
    mixed = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(mixed))
