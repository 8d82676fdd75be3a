"""The next tokens of some prompts, step by step, with a cache of keys and values."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import zip_longest

import torch

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
) -> Iterator[list[int | None]]:
    """One new token per prompt and step; None for a prompt that has come to the context's end.

    What is written behind a prompt depends on its number and the seed, not on its neighbours.

    Args:
        first: Number of the first prompt, where these are a part of a longer list.
        compiled: Compile the steps behind the prompt (see `Step`).

    Raises:
        ValueError: a prompt is longer than the context, or the network is an encoder alone.
    """
    limit = config.max_new_tokens
    groups = group_prompts(transformer, tokenizer, prompts, prompt_format, limit)
    constraint = None if config.pattern is None else Constraint(tokenizer, config.pattern)
    step = Step(transformer, num_pieces(transformer, tokenizer), compiled=compiled)
    writers = [
        _write(step, tokenizer, group, config, constraint, first, prompt_format.bidirectional)
        for group in groups
    ]
    for parts in zip_longest(*writers, fillvalue=()):
        step_B: list[int | None] = [None] * len(prompts)
        for group, tokens in zip(groups, parts, strict=True):
            for row, token in zip(group.numbers, tokens, strict=False):
                step_B[row] = token
        yield step_B


def _write(
    step: Step,
    tokenizer: Tokenizer,
    group: Group,
    config: SamplingConfig,
    constraint: Constraint | None,
    first: int,
    bidirectional: bool,
) -> Iterator[list[int]]:
    """One new token per row and step; every row has room for all steps."""
    transformer, pieces = step.transformer, step.num_pieces
    cache, hidden_BD = prefill(
        transformer, tokenizer, group, bidirectional=bidirectional, int8_cache=config.int8_cache
    )
    device, logits_BV = hidden_BD.device, step.scores(hidden_BD)
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
            seen_BV[every_B, next_B] = True
            logits_BV = step(next_B[:, None], cache)[:, -1]


def prompt_generator(seed: int, number: int, device: torch.device) -> torch.Generator:
    """One per prompt: its choices are its own, however many are written beside it."""
    # Mixed, for a generator of the CPU reads the lower 32 bits of its seed alone.
    mixed = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(mixed))
