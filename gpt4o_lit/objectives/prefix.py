"""Prefix language modelling: read the beginning both ways, say the rest (arXiv:1910.10683)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gpt4o_lit.objectives.causal import next_token_targets
from gpt4o_lit.objectives.draws import Draws
from gpt4o_lit.objectives.objective import (
    IGNORED,
    PADDING,
    Example,
    Lengths,
    Needs,
    Objective,
    Vocabulary,
)
from gpt4o_lit.objectives.segments import document_starts, segment_bounds


@dataclass(kw_only=True, eq=False)
class PrefixLM(Objective):
    """Cut each document of the window at a random place and predict what follows the cut."""

    needs: ClassVar[Needs] = "decoder"
    bidirectional_prompt: ClassVar[bool] = True

    def check(self, vocabulary: Vocabulary) -> None:
        """Any vocabulary will do."""

    def prepare(self, tokens_BT1: Tensor, documents_BT1: Tensor, draws: Draws) -> Example:
        """A document of L positions gets a prefix of 0 to L - 1 of them, each length as likely."""
        documents_BT = documents_BT1[:, :-1]
        first_BT, end_BT = segment_bounds(document_starts(documents_BT))
        draws_BT = draws.rand(documents_BT.shape[1])
        length_BT = end_BT - first_BT
        prefix_length_BT = (draws_BT.gather(1, first_BT) * length_BT).long().minimum(length_BT - 1)
        rank_BT = torch.arange(documents_BT.shape[1], device=documents_BT.device) - first_BT
        # The last position of the prefix is the one that is asked for the first piece after it.
        silent_BT = rank_BT < prefix_length_BT - 1
        targets_BT = next_token_targets(tokens_BT1, documents_BT1)
        return Example(
            tokens=tokens_BT1[:, :-1],
            targets=targets_BT.masked_fill(silent_BT, IGNORED),
            documents=documents_BT,
            prefix=(rank_BT < prefix_length_BT) & (documents_BT != PADDING),
        )

    def lengths(self, seq_len: int) -> Lengths:
        """All is read; the cut falls in the middle on average."""
        return Lengths(target=seq_len, asked=seq_len / 2)
