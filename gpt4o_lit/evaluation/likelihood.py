"""How likely a network finds texts behind others."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from gpt4o_lit.generation.step import UNCOMPILED
from gpt4o_lit.model import Transformer
from gpt4o_lit.objectives import token_statistics

# B batch, T target tokens, S source tokens, M tokens asked for, D dim

Pair = tuple[Sequence[int], Sequence[int]]
"""Tokens that are given, and those behind them whose likelihood is asked for."""
BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Likelihood:
    """Of the tokens behind others."""

    nats: float
    """The logarithm of their probability."""
    is_greedy: bool
    """Whether each of them is the likeliest at its place."""


@dataclass(frozen=True)
class _Row:
    """What the network reads for one or more pairs."""

    source: tuple[int, ...]
    read: tuple[int, ...]
    prefix: int
    """Tokens that see one another both ways."""


@torch.inference_mode()
def likelihoods(
    transformer: Transformer,
    pairs: Sequence[Pair],
    *,
    start_id: int = 0,
    bidirectional: bool = False,
    batch_tokens: int = BATCH_TOKENS,
    on_batch: Callable[[int], object] = lambda count: None,
) -> list[Likelihood]:
    """The likelihood of the second part of each pair, given the first.

    A decoder reads both one behind the other; what is too long for the context loses its beginning.
    An encoder-decoder reads the first with its encoder. Pairs that read the same are read once.

    Args:
        start_id: What an encoder-decoder's answers start with: pad.
        bidirectional: The given tokens see one another both ways (prefix LM).
        batch_tokens: Most tokens read at once, padding included.
        on_batch: Told how many pairs a batch has answered.

    Raises:
        ValueError: the network is an encoder alone, nothing is given or asked, or more is asked
            than the context holds.
    """
    if transformer.decoder is None:
        raise ValueError(
            "this network is an encoder, which gives no likelihood of a text; measure it by "
            "`gpt4o-lit test`"
        )
    rows: dict[_Row, list[int]] = defaultdict(list)
    for number, pair in enumerate(pairs):
        rows[_row(transformer, pair, start_id, bidirectional)].append(number)
    found: dict[int, Likelihood] = {}
    ordered = sorted(rows, key=lambda row: (-len(row.source) - len(row.read), row.read))
    while ordered:
        longest = len(ordered[0].source) + len(ordered[0].read)
        count = max(1, batch_tokens // longest)
        batch, ordered = ordered[:count], ordered[count:]
        hidden_BTD = _hidden(transformer, batch)
        numbers = [number for row in batch for number in rows[row]]
        states = [
            hidden_BTD[place, len(row.read) - len(pairs[number][1]) : len(row.read)]
            for place, row in enumerate(batch)
            for number in rows[row]
        ]
        judged = _judge(transformer, states, [pairs[number][1] for number in numbers])
        found |= zip(numbers, judged, strict=True)
        on_batch(len(numbers))
    return [found[number] for number in range(len(pairs))]


def _row(transformer: Transformer, pair: Pair, start_id: int, bidirectional: bool) -> _Row:
    given, asked = tuple(pair[0]), tuple(pair[1])
    longest = transformer.config.max_seq_len
    if not given or not asked:
        raise ValueError("a pair has no tokens on one side; give at least one token to go on from")
    if len(asked) > longest:
        raise ValueError(
            f"the likelihood of {len(asked)} tokens is asked for, more than max_seq_len "
            f"({longest}); ask for them in parts"
        )
    if transformer.encoder is not None:
        return _Row(given[-longest:], (start_id, *asked[:-1]), 0)
    read = (given + asked)[-longest - 1 : -1]
    return _Row((), read, len(read) + 1 - len(asked) if bidirectional else 0)


def _hidden(transformer: Transformer, batch: list[_Row]) -> Tensor:
    """Final states (B, T, D); what stands behind a row's end is padding that it cannot see."""
    device = transformer.head.weight.device
    tokens_BT = _padded([row.read for row in batch], 0).to(device)
    source_BS = source_documents_BS = prefix_BT = None
    if transformer.encoder is not None:
        sources = [row.source for row in batch]
        source_BS = _padded(sources, 0).to(device)
        source_documents_BS = _padded([[0] * len(ids) for ids in sources], -1).to(device)
    if any(row.prefix for row in batch):
        prefix_B1 = torch.tensor([[row.prefix] for row in batch], device=device)
        prefix_BT = torch.arange(tokens_BT.shape[1], device=device) < prefix_B1
    with torch.compiler.set_stance(UNCOMPILED):
        return transformer.hidden(
            tokens_BT,
            source_BS=source_BS,
            source_documents_BS=source_documents_BS,
            prefix_BT=prefix_BT,
        )


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    tensors = [torch.tensor(row) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=value)


def _judge(
    transformer: Transformer, states: list[Tensor], asked: list[Sequence[int]]
) -> list[Likelihood]:
    head = transformer.head
    targets_M = torch.tensor([id for ids in asked for id in ids], device=head.weight.device)
    nll_M, correct_M = token_statistics(
        head.features(torch.cat(states)), head.matrix(), targets_M, bias=head.bias,
        softcap=head.softcap,
    )  # fmt: skip
    lengths = [len(ids) for ids in asked]
    parts = zip(nll_M.double().split(lengths), correct_M.split(lengths), strict=True)
    return [Likelihood(-float(nll.sum()), bool(correct.all())) for nll, correct in parts]
