"""How much is pruned at which step, and what is pruned staying so."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

# O outputs, I inputs


@dataclass(frozen=True, kw_only=True)
class SparsitySchedule:
    """The share of weights that is pruned, from step to step."""

    final: float = 0.5
    """Share pruned from step `end` on."""
    shape: Literal["cubic", "linear", "one_shot"] = "cubic"
    """cubic prunes most while there is most to spare (arXiv:1710.01878); one_shot all at begin."""
    begin: float = 0.1
    """Step of the first pruning; below 1 a share of all steps."""
    end: float = 0.6
    """Step of the last pruning; up to 1 a share of all steps. The rest heals."""
    every: int = 20
    """Steps from one pruning to the next."""
    initial: float = 0.0
    """Share pruned at step `begin`."""

    def __post_init__(self) -> None:
        for name in ("final", "initial"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} ({getattr(self, name)}) must be at least 0 and below 1; 0.5 prunes "
                    "half of the weights"
                )
        if self.shape not in ("cubic", "linear", "one_shot"):
            raise ValueError(
                f"shape ({self.shape!r}) is unknown; choose from cubic, linear, one_shot"
            )
        if self.initial > self.final:
            raise ValueError(
                f"initial ({self.initial}) must not exceed final ({self.final}), for what is "
                "pruned stays so; lower initial"
            )
        if self.every < 1:
            raise ValueError(f"every ({self.every}) must be at least 1; set it to 20")
        if min(self.begin, self.end) < 0:
            raise ValueError(
                f"begin ({self.begin}) and end ({self.end}) must not be negative; set them to 0"
            )

    def window(self, max_steps: int) -> tuple[int, int]:
        """The steps of the first and of the last pruning in a run of so many steps.

        Raises:
            ValueError: the last pruning is not behind the first, or not within the run.
        """
        begin = _step(self.begin, max_steps, share_of_one=False)
        end = begin if self.shape == "one_shot" else _step(self.end, max_steps, share_of_one=True)
        if end < begin:
            raise ValueError(
                f"end ({self.end}: step {end}) must not come before begin ({self.begin}: step "
                f"{begin}); raise end"
            )
        if end >= max_steps:
            raise ValueError(
                f"the last pruning (step {end}) must come before the run's end (step {max_steps}); "
                "lower begin or end, or raise trainer.max_steps"
            )
        return begin, end

    def due(self, step: int, max_steps: int) -> bool:
        """Whether there is a pruning before this step, counted from 0."""
        begin, end = self.window(max_steps)
        return begin <= step <= end and ((step - begin) % self.every == 0 or step == end)

    def sparsity(self, step: int, max_steps: int) -> float:
        """The share to be pruned at this step."""
        begin, end = self.window(max_steps)
        if step < begin:
            return 0.0
        if step >= end:
            return self.final
        left = 1 - (step - begin) / (end - begin)
        return self.final + (self.initial - self.final) * left ** (
            3 if self.shape == "cubic" else 1
        )


def sparsity_of(weight: Tensor) -> float:
    """The share of a matrix that is zero."""
    return 1 - int(weight.count_nonzero()) / weight.numel()


class Masks:
    """Which weights of some matrices are kept (True); the others are zero and stay so.

    Args:
        weights: Matrices by name; they may be on any device.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = dict(weights)
        # Factors 0 and 1 in bfloat16: three times as fast to multiply with as booleans.
        self._factors: dict[str, Tensor] = {}

    @property
    def kept(self) -> dict[str, Tensor]:
        """Boolean masks by name; none before the first pruning."""
        return {name: factor.bool() for name, factor in self._factors.items()}

    @property
    def sparsity(self) -> float:
        """The share of all weights that is pruned."""
        total = sum(weight.numel() for weight in self.weights.values())
        kept = sum(int(factor.count_nonzero()) for factor in self._factors.values())
        return 1 - kept / total if self._factors else 0.0

    def replace(self, kept: Mapping[str, Tensor]) -> None:
        """Prune by these masks from now on."""
        assert kept.keys() == self.weights.keys()
        self._factors = {name: mask.bfloat16() for name, mask in kept.items()}
        self.zero_()

    @torch.no_grad()
    def zero_(self) -> None:
        """Set what is pruned to zero."""
        for name, factor in self._factors.items():
            self.weights[name].mul_(factor)

    @torch.no_grad()
    def zero_gradients_(self) -> None:
        """What is pruned has no gradient: it counts neither in norms nor in momenta."""
        for name, factor in self._factors.items():
            grad = self.weights[name].grad
            if grad is not None:
                grad.mul_(factor)

    def of(self, weights: Mapping[str, Tensor]) -> "Masks":
        """The same masks over the matrices of a copy of the network."""
        copy = Masks(weights)
        assert copy.weights.keys() == self.weights.keys()
        copy._factors = self._factors
        return copy

    def hold(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep what is pruned at zero through each step of this optimizer, whatever it adds."""
        optimizer.register_step_post_hook(lambda *_: self.zero_())

    def state_dict(self) -> dict[str, Any]:
        """Masks of one bit a weight, as plain tensors."""
        return {name: _packed(mask) for name, mask in self.kept.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take masks over from a checkpoint.

        Raises:
            ValueError: they are of other matrices than these.
        """
        odd = sorted(state.keys() ^ self.weights.keys()) if state else []
        if odd:
            raise ValueError(
                f"the checkpoint's masks and the targets differ in {odd[0]}; give the callback the "
                "targets that it had"
            )
        for name, bits in state.items():
            weight = self.weights[name]
            self._factors[name] = _unpacked(bits, weight.shape).to(weight.device, torch.bfloat16)


def _packed(mask: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(mask.cpu().numpy()))


def _unpacked(bits: Tensor, shape: torch.Size) -> Tensor:
    flat = np.unpackbits(bits.cpu().numpy(), count=shape.numel())
    return torch.from_numpy(flat).bool().view(shape)


def _step(place: float, max_steps: int, *, share_of_one: bool) -> int:
    is_share = place < 1 or (share_of_one and place == 1)
    return round(place * max_steps) if is_share else round(place)
