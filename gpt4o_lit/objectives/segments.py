"""Where the documents of a packed window begin and end, without a loop."""

import torch
from torch import Tensor


def segment_bounds(starts_BT: Tensor) -> tuple[Tensor, Tensor]:
    """For every position the first position of its segment and the one after its last.

    `starts_BT` is true where a segment begins; position 0 always begins one.
    """
    length = starts_BT.shape[1]
    places_T = torch.arange(length, device=starts_BT.device)
    first_BT = torch.where(starts_BT, places_T, 0).cummax(dim=1).values
    next_start_BT = torch.full_like(first_BT, length)
    next_start_BT[:, :-1] = torch.where(starts_BT[:, 1:], places_T[1:], length)
    end_BT = next_start_BT.flip(1).cummin(dim=1).values.flip(1)
    return first_BT, end_BT


def document_starts(documents_BT: Tensor) -> Tensor:
    """True where another document begins than the one to the left."""
    starts_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    starts_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    return starts_BT
