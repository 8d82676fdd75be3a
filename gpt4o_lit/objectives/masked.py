"""Masked language modelling: hide pieces and say what they were (BERT, arXiv:1810.04805)."""

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
    require_share,
)
from gpt4o_lit.objectives.segments import document_starts, segment_bounds


@dataclass(kw_only=True, eq=False)
class MaskedLM(Objective):
    """Predict a random share of the pieces from all the others of their document."""

    rate: float = 0.15
    """Share of the ordinary pieces that are asked for."""
    mask_share: float = 0.8
    """Of those, the share that the mask piece replaces."""
    random_share: float = 0.1
    """Of those, the share that a random ordinary piece replaces; what remains is left as it is."""
    whole_words: bool = False
    """Choose words rather than pieces: all pieces of a word are asked for, or none."""

    needs: ClassVar[Needs] = "encoder"

    def __post_init__(self) -> None:
        for name in ("rate", "mask_share", "random_share"):
            require_share(name, getattr(self, name))
        if self.mask_share + self.random_share > 1.0:
            raise ValueError(
                f"mask_share ({self.mask_share}) and random_share ({self.random_share}) "
                f"must not exceed 1 together; lower one of them"
            )

    def check(self, vocabulary: Vocabulary) -> None:
        require_piece(self, vocabulary, "mask_id")
        if self.whole_words and vocabulary.starts_word is None:
            raise ValueError(
                "whole_words (true) needs the tokenizer's starts_word, which it lacks; "
                "use a tokenizer that marks words or set whole_words to false"
            )
        if len(set(vocabulary.special_ids)) >= vocabulary.size:
            raise ValueError(
                f"MaskedLM needs an ordinary piece, but all {vocabulary.size} are special_ids; "
                f"use a tokenizer with pieces of text"
            )

    def prepare(self, tokens_BT1: Tensor, documents_BT1: Tensor, draws: Draws) -> Example:
        """Three draws per position, in this order: chosen or not, replaced how, by which piece."""
        tokens_BT, documents_BT = tokens_BT1[:, :-1], documents_BT1[:, :-1]
        device = tokens_BT.device
        ordinary_V = _ordinary(self.vocabulary, device)
        chosen_BT, how_BT, piece_BT = draws.rand(3, tokens_BT.shape[1]).unbind(1)
        maskable_BT = ordinary_V[tokens_BT] & (documents_BT != PADDING)
        if self.whole_words:
            starts_BT = self._word_starts(tokens_BT, documents_BT, maskable_BT)
            chosen_BT = chosen_BT.gather(1, segment_bounds(starts_BT)[0])
        asked_BT = (chosen_BT < self.rate) & maskable_BT

        pieces_M = ordinary_V.nonzero().squeeze(1)
        random_BT = pieces_M[(piece_BT * pieces_M.shape[0]).long().clamp_(max=len(pieces_M) - 1)]
        masked_BT = asked_BT & (how_BT < self.mask_share)
        swapped_BT = asked_BT & ~masked_BT & (how_BT < self.mask_share + self.random_share)
        mask_id = require_piece(self, self.vocabulary, "mask_id")
        hidden_BT = torch.where(swapped_BT, random_BT, tokens_BT).masked_fill(masked_BT, mask_id)
        return Example(
            tokens=hidden_BT,
            targets=tokens_BT.masked_fill(~asked_BT, IGNORED),
            documents=documents_BT,
        )

    def lengths(self, seq_len: int) -> Lengths:
        """All is read, `rate` of it is asked for."""
        return Lengths(target=seq_len, asked=self.rate * seq_len)

    def _word_starts(self, tokens_BT: Tensor, documents_BT: Tensor, maskable_BT: Tensor) -> Tensor:
        """A word ends before a piece that begins one, at a special piece, and with its document."""
        assert self.vocabulary.starts_word is not None
        starts_word_V = self.vocabulary.starts_word.to(tokens_BT.device)
        starts_BT = starts_word_V[tokens_BT] | ~maskable_BT | document_starts(documents_BT)
        starts_BT[:, 1:] |= ~maskable_BT[:, :-1]
        return starts_BT


def _ordinary(vocabulary: Vocabulary, device: torch.device) -> Tensor:
    """Bool (V,): true for the pieces that stand for text."""
    ordinary_V = torch.ones(vocabulary.size, dtype=torch.bool)
    ordinary_V[list(vocabulary.special_ids)] = False
    return ordinary_V.to(device)
