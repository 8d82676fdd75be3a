"""From prompts to the state that writing goes on from: they are read once, in groups."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt4o_lit.generation.step import Step, places_for
from gpt4o_lit.model import KVCache, Transformer
from gpt4o_lit.tokenizer import Tokenizer

# B batch, T tokens, S source tokens, D dim

Prompt = str | Sequence[int]
"""A text, or tokens where a text cannot say them (the roles of a chat)."""

# A long prompt is read in parts, so that scores of attention take no more memory than these need.
CHUNK = 512


@dataclass(frozen=True, kw_only=True)
class PromptFormat:
    """How prompts are put before a network: as its training put documents."""

    add_bos: bool = False
    """Put bos before each prompt, as a corpus with add_bos does before each document."""
    bidirectional: bool = False
    """The tokens of a prompt see one another both ways (prefix LM)."""
    add_eos: bool = False
    """Put eos behind what an encoder-decoder reads, as T5 and Marian do."""

    def surround(self, ids: list[int], tokenizer: Tokenizer) -> list[int]:
        """The ids of a prompt with what belongs before and behind them."""
        before = [tokenizer.bos_id] if self.add_bos else []
        behind = [tokenizer.eos_id] if self.add_eos else []
        return [*before, *ids, *behind]


PLAIN = PromptFormat()


@dataclass(frozen=True)
class Group:
    """Prompts behind which equally many tokens have room, so that they are written together."""

    numbers: list[int]
    """Which of the prompts they are."""
    rows: list[list[int]]
    """Their tokens."""
    steps: int
    """Tokens to write behind each."""


def group_prompts(
    transformer: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    prompt_format: PromptFormat,
    max_new_tokens: int,
) -> list[Group]:
    """The prompts as tokens, by how far the context lets each go on.

    Raises:
        ValueError: a prompt is longer than the context, or the network is an encoder alone.
    """
    if transformer.config.num_classes is not None:
        raise ValueError(
            "this network tells classes apart and writes no text; use `gpt4o-lit predict-file`"
        )
    if transformer.decoder is None:
        raise ValueError(
            "this network is an encoder, which writes no text; use `fill` for its masks"
        )
    longest, size = transformer.config.max_seq_len, num_pieces(transformer, tokenizer)
    groups: dict[int, Group] = {}
    for number, prompt in enumerate(prompts):
        ids = _encoded(tokenizer, prompt, longest, prompt_format)
        if max(ids) >= size:
            piece = tokenizer.piece(max(ids))
            raise ValueError(
                f"the network has no vector for {piece}, which the prompt holds; fine-tune it with "
                "this tokenizer first, or leave the piece out"
            )
        room = longest + 1 - (1 if transformer.encoder is not None else len(ids))
        steps = min(max_new_tokens, room)
        group = groups.setdefault(steps, Group([], [], steps))
        group.numbers.append(number)
        group.rows.append(ids)
    return list(groups.values())


def prefill(
    step: Step,
    tokenizer: Tokenizer,
    group: Group,
    *,
    bidirectional: bool,
    int8_cache: bool = False,
) -> tuple[KVCache, Tensor]:
    """A cache that holds the prompts, with room for all steps, and each one's last state: (B, D).

    An encoder-decoder's prompts are what its encoder reads; its decoder has read pad alone.
    """
    transformer, rows = step.transformer, group.rows
    weight = transformer.head.weight
    pad_id = start_id(transformer, tokenizer)  # padding is seen by nobody
    source_BS = source_documents_BS = prefix_BT = None
    if transformer.encoder is not None:
        source_BS, source_documents_BS = _padded(rows, pad_id, weight.device)
        rows = [[pad_id] for _ in rows]
    tokens_BT, documents_BT = _padded(rows, pad_id, weight.device)
    if bidirectional:
        prefix_BT = torch.ones_like(tokens_BT, dtype=torch.bool)
        if documents_BT is not None:
            prefix_BT = documents_BT >= 0  # padding is seen by nobody
    # The last token is told by those before it and never read itself.
    needed = tokens_BT.shape[1] + group.steps - 1
    room = places_for(needed, transformer.config.max_seq_len)
    most = None if bidirectional else CHUNK
    dtype = torch.int8 if int8_cache else weight.dtype
    cache = KVCache(transformer.config, len(rows), room, weight.device, dtype, most)
    last_B = torch.tensor([len(ids) - 1 for ids in rows], device=weight.device)
    size = (len(rows), transformer.config.dim)
    hidden_BD = torch.empty(size, device=weight.device, dtype=weight.dtype)
    length = tokens_BT.shape[1]
    for start in range(0, length, length if bidirectional else CHUNK):
        part = slice(start, length if bidirectional else start + CHUNK)
        hidden_BTD = step.read(
            tokens_BT[:, part],
            cache,
            source_BS=source_BS,
            source_documents_BS=source_documents_BS,
            documents_BT=None if documents_BT is None else documents_BT[:, part],
            prefix_BT=None if prefix_BT is None else prefix_BT[:, part],
        )
        ends_B = (start <= last_B) & (last_B < start + hidden_BTD.shape[1])
        hidden_BD[ends_B] = hidden_BTD[ends_B, last_B[ends_B] - start]
    return cache, hidden_BD


def ids_of(tokenizer: Tokenizer, prompt: Prompt) -> list[int]:
    """The tokens of a prompt."""
    return tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)


def num_pieces(transformer: Transformer, tokenizer: Tokenizer) -> int:
    """Pieces that the network can write: a vocab_size rounded up has scores that belong to none,
    and an imported network has no vectors for what was appended to its tokenizer."""
    return min(tokenizer.vocab_size, transformer.config.vocab_size or 0)


def start_id(transformer: Transformer, tokenizer: Tokenizer) -> int:
    """What an encoder-decoder's answers start with: pad, or 0 where it has no vector for it."""
    return tokenizer.pad_id if tokenizer.pad_id < num_pieces(transformer, tokenizer) else 0


def _encoded(
    tokenizer: Tokenizer, prompt: Prompt, longest: int, prompt_format: PromptFormat
) -> list[int]:
    """The prompt's ids; an empty prompt is the end of a document, behind which another begins."""
    ids = prompt_format.surround(ids_of(tokenizer, prompt), tokenizer) or [tokenizer.eos_id]
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
