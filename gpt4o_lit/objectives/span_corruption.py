"""Span corruption: hide spans behind sentinels and say them in turn (T5, arXiv:1910.10683).

Shapes: B rows, T tokens of the window, S source tokens, U target tokens, K spans.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gpt4o_lit.objectives.draws import Draws
from gpt4o_lit.objectives.objective import (
    IGNORED,
    PADDING,
    Example,
    Lengths,
    Needs,
    Objective,
    Vocabulary,
    require_piece,
)
from gpt4o_lit.objectives.segments import document_starts, segment_bounds


@dataclass(kw_only=True, eq=False)
class SpanCorruption(Objective):
    """Replace spans of the source by sentinels; the target is each sentinel and what it hides.

    The lengths of source and target follow from the window alone, so nothing is padded. Each
    document counts its sentinels from the first, sees its own pieces alone, and its decoder starts
    from pad; the target of a window ends with eos. Where a hidden span runs into the next document,
    the pieces over there are dropped: nobody sees them and nobody is asked for them.
    """

    rate: float = 0.15
    """Share of the pieces that are hidden."""
    mean_span: float = 3.0
    """Pieces in a hidden span, on average."""

    needs: ClassVar[Needs] = "encoder_decoder"

    def __post_init__(self) -> None:
        if not 0.0 < self.rate < 1.0:
            raise ValueError(
                f"rate ({self.rate}) must lie between 0 and 1; set rate to a share such as 0.15"
            )
        if not self.mean_span >= 1.0:
            raise ValueError(
                f"mean_span ({self.mean_span}) must be at least 1; set mean_span to such as 3"
            )

    def check(self, vocabulary: Vocabulary) -> None:
        require_piece(self, vocabulary, "pad_id")
        require_piece(self, vocabulary, "eos_id")
        if not vocabulary.sentinel_ids:
            raise ValueError(
                "SpanCorruption needs sentinel_ids, which the tokenizer lacks; "
                "train a tokenizer with sentinels or choose another objective"
            )

    def span_counts(self, seq_len: int) -> tuple[int, int]:
        """Hidden pieces and spans of a window; the source has T - hidden + spans pieces."""
        if seq_len < 2:
            raise ValueError(f"seq_len ({seq_len}) must be at least 2; set seq_len to such as 512")
        num_hidden = min(max(round(seq_len * self.rate), 1), seq_len - 1)
        num_spans = max(round(num_hidden / self.mean_span), 1)
        return num_hidden, min(num_spans, seq_len - num_hidden)

    @property
    def mark_ids(self) -> tuple[int, ...]:
        """Sentinels, and what begins and ends documents or the target."""
        ends = (self.vocabulary.bos_id, self.vocabulary.eos_id)
        return (*self.vocabulary.sentinel_ids, *(piece for piece in ends if piece is not None))

    def lengths(self, seq_len: int) -> Lengths:
        """Source and target share the window; each span adds a sentinel to both, eos ends one."""
        num_hidden, num_spans = self.span_counts(seq_len)
        target = num_hidden + num_spans + 1
        return Lengths(target=target, asked=target, source=seq_len - num_hidden + num_spans)

    def prepare(self, tokens_BT1: Tensor, documents_BT1: Tensor, draws: Draws) -> Example:
        tokens_BT, documents_BT = tokens_BT1[:, :-1], documents_BT1[:, :-1]
        seq_len = tokens_BT.shape[1]
        num_hidden, num_spans = self.span_counts(seq_len)
        sentinels_K = torch.tensor(self.vocabulary.sentinel_ids, device=tokens_BT.device)
        if num_spans > len(sentinels_K):
            raise ValueError(
                f"seq_len ({seq_len}) asks for {num_spans} spans, but the tokenizer has "
                f"{len(sentinels_K)} sentinel_ids; shorten seq_len or raise mean_span"
            )
        hidden_BT = random_spans(seq_len, num_hidden, num_spans, draws)
        spans = _Spans(tokens_BT, documents_BT, hidden_BT, sentinels_K)
        source_BS, source_documents_BS = spans.source(seq_len - num_hidden + num_spans)
        said_BU, documents_BU = spans.target(num_hidden + num_spans)
        eos_id = require_piece(self, self.vocabulary, "eos_id")
        said_BU = torch.cat([said_BU, torch.full_like(said_BU[:, :1], eos_id)], dim=1)
        documents_BU = torch.cat([documents_BU, documents_BU[:, -1:]], dim=1)
        pad_id = require_piece(self, self.vocabulary, "pad_id")
        read_BU = said_BU.roll(1, dims=1).masked_fill(document_starts(documents_BU), pad_id)
        return Example(
            tokens=read_BU,
            targets=said_BU.masked_fill(documents_BU == PADDING, IGNORED),
            documents=documents_BU,
            source=source_BS,
            source_documents=source_documents_BS,
        )


def random_spans(seq_len: int, num_hidden: int, num_spans: int, draws: Draws) -> Tensor:
    """Bool (B, T): `random_spans_noise_mask` of T5; seen and hidden spans in turn, seen first."""
    hidden_BK = random_lengths(num_hidden, num_spans, draws)
    seen_BK = random_lengths(seq_len - num_hidden, num_spans, draws)
    turns_BK = torch.stack([seen_BK, hidden_BK], dim=2).flatten(1)
    ends_BK = turns_BK.cumsum(dim=1)
    flips_BT = torch.zeros((len(ends_BK), seq_len + 1), dtype=torch.int64, device=draws.device)
    flips_BT.scatter_(1, ends_BK, 1)
    return flips_BT[:, :seq_len].cumsum(dim=1) % 2 == 1


def random_lengths(total: int, num_parts: int, draws: Draws) -> Tensor:
    """(B, K): split a total into parts of at least one, all splits alike."""
    cuts_BK = draws.rand(total - 1).argsort(dim=1)[:, : num_parts - 1].sort(dim=1).values + 1
    bounds_BK = torch.nn.functional.pad(cuts_BK, (1, 0), value=0)
    return torch.nn.functional.pad(bounds_BK, (0, 1), value=total).diff(dim=1)


class _Spans:
    """Where each piece of a window goes once its hidden spans are known."""

    def __init__(
        self, tokens_BT: Tensor, documents_BT: Tensor, hidden_BT: Tensor, sentinels_K: Tensor
    ) -> None:
        self.tokens, self.documents, self.hidden = tokens_BT, documents_BT, hidden_BT
        self.starts = hidden_BT.clone()
        self.starts[:, 1:] &= ~hidden_BT[:, :-1]
        self.count = self.starts.cumsum(dim=1)
        document_first_BT, _ = segment_bounds(document_starts(documents_BT))
        span_first_BT, _ = segment_bounds(self.starts)
        # Spans that began before the document did: its own are counted from there.
        earlier_BT = (self.count - self.starts.long()).gather(1, document_first_BT)
        self.sentinels = sentinels_K[(self.count - 1 - earlier_BT).clamp(min=0)]
        lost_BT = hidden_BT & (documents_BT != documents_BT.gather(1, span_first_BT))
        self.heard = documents_BT.masked_fill(lost_BT, PADDING)

    def source(self, length: int) -> tuple[Tensor, Tensor]:
        """The seen pieces and, for each hidden span, its sentinel; with their documents."""
        kept_BT = self.starts | ~self.hidden
        places_BT = torch.where(kept_BT, kept_BT.cumsum(dim=1) - 1, length)
        pieces_BT = torch.where(self.starts, self.sentinels, self.tokens)
        return _place(pieces_BT, places_BT, length), _place(self.documents, places_BT, length)

    def target(self, length: int) -> tuple[Tensor, Tensor]:
        """Each span's sentinel and pieces; with the documents in which they are seen."""
        places_BT = self.hidden.cumsum(dim=1) - 1 + self.count
        sentinel_places_BT = torch.where(self.starts, places_BT - 1, length)
        places_BT = torch.where(self.hidden, places_BT, length)
        both_B2T = torch.cat([sentinel_places_BT, places_BT], dim=1)
        pieces_B2T = torch.cat([self.sentinels, self.tokens], dim=1)
        documents_B2T = torch.cat([self.documents, self.heard], dim=1)
        return _place(pieces_B2T, both_B2T, length), _place(documents_B2T, both_B2T, length)


def _place(values_BT: Tensor, places_BT: Tensor, length: int) -> Tensor:
    """Put each value at its place; what is to go at `length` is dropped."""
    out = values_BT.new_empty((values_BT.shape[0], length + 1))
    return out.scatter_(1, places_BT, values_BT)[:, :length]
