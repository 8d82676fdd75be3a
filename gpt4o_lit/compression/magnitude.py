"""Masks that keep the largest weights or scores, exact to the element."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gpt4o_lit.compression.sparsity import SparsitySchedule

# O outputs, I inputs

Scope = Literal["global", "layer", "row"]

# Magnitudes are sorted into bins by the upper bits of their float32 form, which order as they do.
LOWER_BITS = 15
NUM_BINS = 1 << (31 - LOWER_BITS)
CHUNK = 1 << 20  # elements worked on at once, so that temporaries stay in the cache


@dataclass(frozen=True)
class Pattern:
    """N of every M weights in a row are kept, as hardware for sparse products wants it."""

    kept: int
    group: int

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """From `N:M`.

        Raises:
            ValueError: not of that form, or nothing would be pruned.
        """
        parts = text.split(":")
        if len(parts) != 2 or not all(part.isdecimal() for part in parts):
            raise ValueError(f"pattern ({text!r}) must be N:M, such as 2:4; or leave it out")
        kept, group = map(int, parts)
        if not 0 < kept < group:
            raise ValueError(
                f"pattern ({text}) must keep more than none of each group and less than all; "
                "take such as 2:4"
            )
        return cls(kept, group)

    @property
    def sparsity(self) -> float:
        """The share of weights that it prunes."""
        return 1 - self.kept / self.group

    def require_schedule(self, schedule: SparsitySchedule) -> None:
        """Refuse a schedule that asks for another share than the pattern's, or for it in steps."""
        if schedule.shape != "one_shot" or abs(schedule.final - self.sparsity) > 1e-9:
            raise ValueError(
                f"the pattern {self.kept}:{self.group} prunes {self.sparsity:g} at once, but the "
                f"schedule is {schedule.shape} to {schedule.final:g}; set schedule.shape to "
                f"one_shot and schedule.final to {self.sparsity:g}"
            )

    def require_width(self, name: str, inputs: int) -> None:
        """Refuse a matrix whose rows fall into no such groups."""
        if inputs % self.group:
            raise ValueError(
                f"{name}: its {inputs} inputs must be a multiple of M in the pattern "
                f"{self.kept}:{self.group}; leave the layer out by but_not, or choose another M"
            )

    def mask(self, scores_OI: Tensor) -> Tensor:
        """Keep the N largest of each group: boolean (O, I)."""
        groups = scores_OI.unflatten(-1, (-1, self.group))
        best = groups.topk(self.kept, dim=-1).indices
        return torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, best, True).flatten(-2)


def magnitude_masks(
    weights: Mapping[str, Tensor], sparsity: float, scope: Scope = "global", *, signed: bool = False
) -> dict[str, Tensor]:
    """Masks that prune this share of the smallest weights; of equals, those that come first.

    Args:
        weights: Matrices (O, I) by name.
        sparsity: Share to prune, rounded to whole weights.
        scope: What the share is of: all matrices together, each, or each row of each.
        signed: They are scores, of which the lowest are pruned: -2 before -1 before 1.
    """
    if scope == "row":
        return {
            name: ~smallest_of_rows(weight if signed else weight.abs(), sparsity)
            for name, weight in weights.items()
        }
    if scope == "layer":
        return {
            name: without_smallest([weight], round(sparsity * weight.numel()), signed=signed)[0]
            for name, weight in weights.items()
        }
    total = sum(weight.numel() for weight in weights.values())
    masks = without_smallest(list(weights.values()), round(sparsity * total), signed=signed)
    return dict(zip(weights, masks, strict=True))


def smallest_of_rows(scores_OI: Tensor, share: float) -> Tensor:
    """Where the smallest scores of each row are: boolean (O, I), equally many in each."""
    least = scores_OI.detach().topk(round(share * scores_OI.shape[-1]), largest=False).indices
    return torch.zeros_like(scores_OI, dtype=torch.bool).scatter_(-1, least, True)


@torch.no_grad()
def without_smallest(
    weights: Sequence[Tensor], count: int, *, signed: bool = False
) -> list[Tensor]:
    """Masks that are False for the `count` smallest magnitudes of all of them together.

    With `signed`, for the lowest values.

    Two passes: one counts magnitudes by bins, one compares with the bin in which the border lies;
    only the few weights within that bin are sorted.
    """
    if count == 0:
        return [torch.ones_like(weight, dtype=torch.bool) for weight in weights]
    device = weights[0].device
    lowest = -NUM_BINS if signed else 0  # the number of the first bin
    counts = torch.zeros(NUM_BINS - lowest, dtype=torch.long, device=device)
    for chunk in _chunks(weights):
        bins = (_bits(chunk, signed) >> LOWER_BITS) - lowest
        counts += torch.bincount(bins, minlength=len(counts))
    below = counts.cumsum(0)
    border = int(torch.searchsorted(below, count))  # the bin that the count-th smallest is in
    within = count - (int(below[border - 1]) if border else 0)
    low = (border + lowest) << LOWER_BITS
    high = low + (1 << LOWER_BITS) - 1
    masks = [torch.empty(weight.shape, dtype=torch.bool, device=device) for weight in weights]
    candidates = []
    for chunk, kept in zip(_chunks(weights), _chunks(masks), strict=True):
        bits = _bits(chunk, signed)
        torch.gt(bits, high, out=kept)
        inside = ((bits >= low) & (bits <= high)).nonzero().squeeze(1)
        candidates.append((bits[inside], kept, inside))
    values = torch.cat([bits for bits, _, _ in candidates])
    keeps = torch.ones_like(values, dtype=torch.bool)
    keeps[values.argsort(stable=True)[:within]] = False
    parts = keeps.split([len(bits) for bits, _, _ in candidates])
    for (_, kept, inside), part in zip(candidates, parts, strict=True):
        kept[inside] = part
    return masks


def _chunks(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Flat views of at most CHUNK elements."""
    return [part for tensor in tensors for part in tensor.detach().view(-1).split(CHUNK)]


def _bits(weights: Tensor, signed: bool) -> Tensor:
    """Magnitudes, or values, as integers that order as they do."""
    bits = weights.float().view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF) if signed else bits & 0x7FFFFFFF
