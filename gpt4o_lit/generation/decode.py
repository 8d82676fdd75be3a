"""The next tokens of some prompts, step by step, with a cache of keys and values."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from gpt4o_lit.generation.sampling import SamplingConfig, sample
from gpt4o_lit.model import KVCache, Transformer
from gpt4o_lit.tokenizer import Tokenizer

# B batch, T tokens, S source tokens

# Stacks may be compiled for training, whose shapes are few; here nearly every call has its own.
UNCOMPILED = "force_eager"


@dataclass(frozen=True, kw_only=True)
class PromptFormat:
    """How prompts are put before a network: as its training put documents."""

    add_bos: bool = False
    """Put bos before each prompt, as a corpus with add_bos does before each document."""
    bidirectional: bool = False
    """The tokens of a prompt see one another both ways (prefix LM)."""


PLAIN = PromptFormat()


@torch.inference_mode()
def decode(
    transformer: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    config: SamplingConfig,
    *,
    prompt_format: PromptFormat = PLAIN,
    first: int = 0,
) -> Iterator[list[int | None]]:
    """One new token per prompt and step; None for a prompt that has come to the context's end.

    What is written behind a prompt depends on its number and the seed, not on its neighbours.

    Args:
        first: Number of the first prompt, where these are a part of a longer list.

    Raises:
        ValueError: a prompt is longer than the context, or the network is an encoder alone.
    """
    if transformer.decoder is None:
        raise ValueError(
            "this network is an encoder, which writes no text; use `fill` for its masks"
        )
    longest = transformer.config.max_seq_len
    rows = [_encoded(tokenizer, prompt, longest, prompt_format.add_bos) for prompt in prompts]
    groups: dict[int, list[int]] = {}  # rows that can go equally far are written together
    for row, ids in enumerate(rows):
        room = longest + 1 - (1 if transformer.encoder is not None else len(ids))
        groups.setdefault(min(config.max_new_tokens, room), []).append(row)
    writers = [
        _decode_together(
            transformer,
            tokenizer,
            [rows[row] for row in members],
            config,
            steps=steps,
            numbers=[first + row for row in members],
            bidirectional_prompt=prompt_format.bidirectional,
        )
        for steps, members in groups.items()
    ]
    for parts in zip_longest(*writers, fillvalue=()):
        step_B: list[int | None] = [None] * len(rows)
        for members, tokens in zip(groups.values(), parts, strict=True):
            for row, token in zip(members, tokens, strict=False):
                step_B[row] = token
        yield step_B


def _decode_together(
    transformer: Transformer,
    tokenizer: Tokenizer,
    rows: list[list[int]],
    config: SamplingConfig,
    *,
    steps: int,
    numbers: list[int],
    bidirectional_prompt: bool,
) -> Iterator[list[int]]:
    """One new token per row and step; every row has room for all steps."""
    weight, pieces = transformer.head.weight, tokenizer.vocab_size
    device = weight.device
    source_BS = source_documents_BS = prefix_BT = None
    if transformer.encoder is not None:
        source_BS, source_documents_BS = _padded(rows, tokenizer.pad_id, device)
        rows = [[tokenizer.pad_id] for _ in rows]
    tokens_BT, documents_BT = _padded(rows, tokenizer.pad_id, device)
    if bidirectional_prompt:
        prefix_BT = torch.ones_like(tokens_BT, dtype=torch.bool)
        if documents_BT is not None:
            prefix_BT = documents_BT >= 0  # padding is seen by nobody
    every_B = torch.arange(len(rows), device=device)
    # The last token is told by those before it and never read itself.
    room = tokens_BT.shape[1] + steps - 1
    cache = KVCache(transformer.config, len(rows), room, device, weight.dtype)
    seen_BV = torch.zeros(len(rows), pieces, dtype=torch.bool, device=device)
    for row, ids in enumerate(rows):
        seen_BV[row, ids] = True
    generators = [_generator(config.seed, number, device) for number in numbers]
    with torch.compiler.set_stance(UNCOMPILED):
        hidden_BTD = transformer.hidden(
            tokens_BT,
            source_BS=source_BS,
            source_documents_BS=source_documents_BS,
            documents_BT=documents_BT,
            prefix_BT=prefix_BT,
            cache=cache,
        )
    last_B = torch.tensor([len(ids) - 1 for ids in rows], device=device)
    hidden_B1D = hidden_BTD[every_B, last_B][:, None]
    for left in reversed(range(steps)):
        # A vocab_size rounded up has scores that no piece belongs to.
        logits_BV = transformer.head(hidden_B1D)[:, -1, :pieces].float()
        next_B = sample(logits_BV, config, generators, seen_BV)
        yield next_B.tolist()
        if left:
            seen_BV[every_B, next_B] = True
            with torch.compiler.set_stance(UNCOMPILED):
                hidden_B1D = transformer.hidden(next_B[:, None], cache=cache)


@torch.inference_mode()
def fill(
    transformer: Transformer,
    tokenizer: Tokenizer,
    text: str,
    mask: str = "<mask>",
    *,
    prompt_format: PromptFormat = PLAIN,
) -> str:
    """The text with each `mask` replaced by the piece that an encoder finds likeliest there.

    Raises:
        ValueError: the network has a decoder, or the text has no mask or is too long.
    """
    if transformer.decoder is not None:
        raise ValueError("this network has a decoder, which fills no masks; use `generate`")
    if mask not in text:
        raise ValueError(f"the text has no {mask} to fill; write {mask} where a piece is missing")
    first, *others = text.split(mask)
    # A part behind a mask opens no text, so no model puts a space in front of it.
    flat, lengths = tokenizer.encode_flat([first, *others], ["", *(mask[-1] for _ in others)])
    ids = [tokenizer.bos_id] if prompt_format.add_bos else []
    for number, part in enumerate(np.split(flat, np.cumsum(lengths)[:-1])):
        ids += ([tokenizer.mask_id] if number else []) + part.tolist()
    tokens_BT = torch.tensor([ids], device=transformer.head.weight.device)
    with torch.compiler.set_stance(UNCOMPILED):
        logits_BTV = transformer(tokens_BT)[..., : tokenizer.vocab_size]
    logits_BTV[..., list(tokenizer.special_ids)] = float("-inf")
    filled = torch.where(tokens_BT == tokenizer.mask_id, logits_BTV.argmax(-1), tokens_BT)
    return tokenizer.decode(filled[0].tolist())


def _generator(seed: int, number: int, device: torch.device) -> torch.Generator:
    """One per prompt: its choices are its own, however many are written beside it."""
    # Mixed, for a generator of the CPU reads the lower 32 bits of its seed alone.
    mixed = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(mixed))


def _encoded(tokenizer: Tokenizer, prompt: str, longest: int, add_bos: bool) -> list[int]:
    """The prompt's ids; an empty prompt is the end of a document, behind which another begins."""
    ids = ([tokenizer.bos_id] if add_bos else []) + tokenizer.encode(prompt)
    ids = ids or [tokenizer.eos_id]
    if len(ids) > longest:
        raise ValueError(
            f"the prompt has {len(ids)} tokens, more than max_seq_len ({longest}); shorten it"
        )
    return ids


def _padded(
    rows: list[list[int]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Rows padded on the right, and their documents (0, padding -1) where lengths differ."""
    longest = max(len(row) for row in rows)
    tokens = torch.tensor([row + [pad_id] * (longest - len(row)) for row in rows], device=device)
    if all(len(row) == longest for row in rows):
        return tokens, None
    documents = [[0] * len(row) + [-1] * (longest - len(row)) for row in rows]
    return tokens, torch.tensor(documents, device=device)
