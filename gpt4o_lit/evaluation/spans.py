"""Finds the part of a text that answers a question, over windows that overlap."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from gpt4o_lit.model import Transformer, token_types
from gpt4o_lit.tokenizer import Tokenizer

# B windows, T pieces

WINDOWS = 16
"""Read at once."""
LONGEST = 30
"""Most pieces of an answer."""


class Window(Protocol):
    """A question and a part of its text."""

    @property
    def pieces(self) -> list[int]:
        """What is read between bos and eos."""

    @property
    def first(self) -> int:
        """Where the text begins among them."""

    def answer(self, context: str, start: int, end: int) -> str:
        """What stands at places of the row in which bos is 0."""


@torch.inference_mode()
def find_answer(
    network: Transformer,
    tokenizer: Tokenizer,
    windows: Sequence[Window],
    context: str,
    *,
    unanswered: bool,
) -> str:
    """The likeliest answer of all windows; the empty text where each has more for none, if some
    questions are `unanswered`."""
    best_score, best, none = -float("inf"), "", float("inf")
    for first in range(0, len(windows), WINDOWS):
        batch = windows[first : first + WINDOWS]
        tokens_BT, documents_BT, may_BT = _rows(batch, tokenizer)
        device = network.head.weight.device
        tokens_BT, documents_BT = tokens_BT.to(device), documents_BT.to(device)
        types_BT = token_types(network, tokens_BT, tokenizer.eos_id)
        scores_BT2 = network(tokens_BT, documents_BT=documents_BT, types_BT=types_BT).float().cpu()
        found = best_spans(scores_BT2[..., 0], scores_BT2[..., 1], may_BT)
        none = min(none, float((scores_BT2[:, 0, 0] + scores_BT2[:, 0, 1]).min()))
        for window, score, start, end in zip(
            batch, *(each.tolist() for each in found), strict=True
        ):
            if score > best_score:
                best_score, best = score, window.answer(context, start, end)
    return best if best_score >= none else ""


def best_spans(
    starts_BT: Tensor, ends_BT: Tensor, may_BT: Tensor, longest: int = LONGEST
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each window the score, begin and end of the best span, (B,) each; -inf where none may be.

    Args:
        starts_BT: Scores of an answer that begins at a place.
        ends_BT: The same for its last piece.
        may_BT: Where an answer may stand.
        longest: Most pieces from begin to end.
    """
    length = starts_BT.shape[1]
    sums_BTT = starts_BT[:, :, None] + ends_BT[:, None, :]
    steps = torch.arange(length)
    apart = steps[None, :] - steps[:, None]
    allowed_BTT = may_BT[:, :, None] & may_BT[:, None, :] & (apart >= 0) & (apart < longest)
    scores_B, places_B = sums_BTT.masked_fill(~allowed_BTT, -float("inf")).flatten(1).max(1)
    return scores_B, places_B // length, places_B % length


def _rows(windows: Sequence[Window], tokenizer: Tokenizer) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, documents (padding -1) and where an answer may stand, (B, T) each."""
    longest = max(len(window.pieces) for window in windows) + 2
    shape = len(windows), longest
    tokens_BT = torch.full(shape, tokenizer.pad_id)
    documents_BT, may_BT = torch.full(shape, -1), torch.zeros(shape, dtype=torch.bool)
    for row, window in enumerate(windows):
        read = [tokenizer.bos_id, *window.pieces, tokenizer.eos_id]
        tokens_BT[row, : len(read)] = torch.tensor(read)
        documents_BT[row, : len(read)] = 0
        may_BT[row, 1 + window.first : len(read) - 1] = True
    return tokens_BT, documents_BT, may_BT
