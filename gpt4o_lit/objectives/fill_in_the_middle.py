"""Rearrange documents so that a causal model learns to fill gaps (FIM, arXiv:2207.14255)."""

import torch
from torch import Tensor

from gpt4o_lit.objectives.draws import Draws
from gpt4o_lit.objectives.objective import PADDING, Vocabulary
from gpt4o_lit.objectives.segments import document_starts, segment_bounds

FIM_MARKS = ("prefix", "suffix", "middle")


def fill_in_the_middle(
    tokens_BT: Tensor,
    documents_BT: Tensor,
    vocabulary: Vocabulary,
    rate: float,
    spm_rate: float,
    draws: Draws,
) -> Tensor:
    """Rearrange a share of the documents, each inside the places it already has.

    PSM: `prefix-mark P suffix-mark S middle-mark M`.
    SPM: `prefix-mark suffix-mark S middle-mark P M`.
    A first bos and a last eos stay where they are. The three marks take the room of the last three
    pieces of the suffix, so that a middle is always whole and no document moves or meets another.
    Documents of fewer than four pieces stay as they are.
    """
    first_BT, end_BT = segment_bounds(document_starts(documents_BT))
    draws_BT4 = draws.rand(tokens_BT.shape[1], 4)
    draws_BT4 = draws_BT4.gather(1, first_BT[..., None].expand(-1, -1, 4))
    chosen_BT, order_BT, *cuts = draws_BT4.unbind(-1)

    if vocabulary.bos_id is not None:
        first_BT = first_BT + (tokens_BT.gather(1, first_BT) == vocabulary.bos_id)
    if vocabulary.eos_id is not None:
        end_BT = end_BT - (tokens_BT.gather(1, end_BT - 1) == vocabulary.eos_id).long()
    length_BT = end_BT - first_BT - len(FIM_MARKS)
    rank_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device) - first_BT
    low_BT, high_BT = _cut(cuts[0], cuts[1], length_BT)

    content_BT, suffix_mark_BT, middle_mark_BT = _layout(
        rank_BT, low_BT, high_BT, length_BT, order_BT < spm_rate
    )
    moved_BT = tokens_BT.gather(1, (first_BT + content_BT).clamp(0, tokens_BT.shape[1] - 1))
    moved_BT = moved_BT.masked_fill(rank_BT == 0, vocabulary.fim_ids["prefix"])
    moved_BT = moved_BT.masked_fill(rank_BT == suffix_mark_BT, vocabulary.fim_ids["suffix"])
    moved_BT = moved_BT.masked_fill(rank_BT == middle_mark_BT, vocabulary.fim_ids["middle"])
    inside_BT = (rank_BT >= 0) & (rank_BT < length_BT + len(FIM_MARKS)) & (length_BT >= 1)
    rearranged_BT = inside_BT & (chosen_BT < rate) & (documents_BT != PADDING)
    return torch.where(rearranged_BT, moved_BT, tokens_BT)


def _cut(one_BT: Tensor, other_BT: Tensor, length_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Two places in [0, length], each equally likely, in order."""
    one_BT = (one_BT * (length_BT + 1)).long().minimum(length_BT)
    other_BT = (other_BT * (length_BT + 1)).long().minimum(length_BT)
    return one_BT.minimum(other_BT), one_BT.maximum(other_BT)


def _layout(
    rank_BT: Tensor, low_BT: Tensor, high_BT: Tensor, length_BT: Tensor, spm_BT: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """For each rank the content it takes, and the ranks of the suffix and the middle mark."""
    before_suffix_BT = torch.where(spm_BT, 0, low_BT)
    suffix_mark_BT = before_suffix_BT + 1
    middle_mark_BT = suffix_mark_BT + length_BT - high_BT + 1
    # After the middle mark stands the middle (PSM), or the prefix and the middle in one (SPM).
    resume_BT = torch.where(spm_BT, 0, low_BT)
    content_BT = torch.where(
        rank_BT < suffix_mark_BT,
        rank_BT - 1,
        torch.where(
            rank_BT < middle_mark_BT,
            high_BT + rank_BT - suffix_mark_BT - 1,
            resume_BT + rank_BT - middle_mark_BT - 1,
        ),
    )
    return content_BT, suffix_mark_BT, middle_mark_BT
