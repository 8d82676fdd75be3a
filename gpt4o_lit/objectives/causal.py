"""Causal language modelling: say the next piece; by option, fill in the middle."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gpt4o_lit.objectives.draws import Draws
from gpt4o_lit.objectives.fill_in_the_middle import FIM_MARKS, fill_in_the_middle
from gpt4o_lit.objectives.objective import (
    IGNORED,
    PADDING,
    Example,
    Needs,
    Objective,
    Vocabulary,
    require_share,
)


def next_token_targets(tokens_BT1: Tensor, documents_BT1: Tensor) -> Tensor:
    """The next piece of the same document; nothing is asked across a boundary or of padding."""
    here_BT, next_BT = documents_BT1[:, :-1], documents_BT1[:, 1:]
    asked_BT = (here_BT == next_BT) & (here_BT != PADDING)
    return torch.where(asked_BT, tokens_BT1[:, 1:], IGNORED)


@dataclass(kw_only=True, eq=False)
class CausalLM(Objective):
    """Predict each piece from those before it in its document."""

    fim_rate: float = 0.0
    """Share of documents rearranged to fill in the middle (arXiv:2207.14255); 0 for none."""
    fim_spm_rate: float = 0.5
    """Of those, the share written suffix-prefix-middle; the rest are prefix-suffix-middle."""

    needs: ClassVar[Needs] = "decoder"

    def __post_init__(self) -> None:
        require_share("fim_rate", self.fim_rate)
        require_share("fim_spm_rate", self.fim_spm_rate)

    @property
    def fills_gaps(self) -> bool:
        return self.fim_rate > 0.0

    def check(self, vocabulary: Vocabulary) -> None:
        missing = [mark for mark in FIM_MARKS if mark not in vocabulary.fim_ids]
        if self.fim_rate > 0.0 and missing:
            raise ValueError(
                f"fim_rate ({self.fim_rate}) needs the tokenizer's fim_ids {', '.join(missing)}; "
                f"train a tokenizer with those pieces or set fim_rate to 0"
            )

    def prepare(self, tokens_BT1: Tensor, documents_BT1: Tensor, draws: Draws) -> Example:
        vocabulary = self.vocabulary
        if self.fim_rate > 0.0:
            tokens_BT1 = fill_in_the_middle(
                tokens_BT1, documents_BT1, vocabulary, self.fim_rate, self.fim_spm_rate, draws
            )
        return self.prepare_evaluation(tokens_BT1, documents_BT1, draws)

    def prepare_evaluation(
        self, tokens_BT1: Tensor, documents_BT1: Tensor, draws: Draws
    ) -> Example:
        """The text as it stands, so that runs with and without fim_rate can be compared."""
        return Example(
            tokens=tokens_BT1[:, :-1],
            targets=next_token_targets(tokens_BT1, documents_BT1),
            documents=documents_BT1[:, :-1],
        )
