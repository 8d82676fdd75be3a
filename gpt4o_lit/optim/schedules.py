"""Learning rate over time, as a factor of each group's own rate.

Every schedule takes the step about to be made (from 0) and the steps in all. Warm-up rises in equal
parts and reaches 1 at step `warmup`; a fall ends at `max_steps`, just after the last step. So
neither the first nor the last step is spent at 0.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass


class Schedule(ABC):
    """Factor of the learning rate at a step."""

    @abstractmethod
    def __call__(self, step: int, max_steps: int) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The same rate from the first step to the last, after an optional warm-up."""

    warmup: float = 0
    """Steps of warm-up; below 1 a share of all steps."""

    def __post_init__(self) -> None:
        _require_warmup(self.warmup)

    def __call__(self, step: int, max_steps: int) -> float:
        return _rise(step, _warmup_steps(self.warmup, max_steps))


@dataclass(frozen=True, kw_only=True)
class Fall(Schedule):
    """Rise, then fall in the way of the subclass."""

    warmup: float = 0.02
    """Steps of warm-up; below 1 a share of all steps."""
    min_factor: float = 0.0
    """Factor that it falls to, and not below."""

    def __post_init__(self) -> None:
        _require_warmup(self.warmup)
        _require_factor("min_factor", self.min_factor)

    def __call__(self, step: int, max_steps: int) -> float:
        warmup = _warmup_steps(self.warmup, max_steps)
        return _rise(step, warmup) if step < warmup else self.fall(step, warmup, max_steps)

    @abstractmethod
    def fall(self, step: int, warmup: int, max_steps: int) -> float:
        """The factor at a step behind the warm-up."""


@dataclass(frozen=True, kw_only=True)
class WarmupCosine(Fall):
    """Rise, then fall along half a cosine to `min_factor` at the end (arXiv:1608.03983)."""

    min_factor: float = 0.1
    """Factor at the end."""

    def fall(self, step: int, warmup: int, max_steps: int) -> float:
        share = _share(step, warmup, max_steps)
        return self.min_factor + (1.0 - self.min_factor) * 0.5 * (1.0 + math.cos(math.pi * share))


@dataclass(frozen=True, kw_only=True)
class WarmupLinear(Fall):
    """Rise, then fall in a straight line to `min_factor` at the end."""

    def fall(self, step: int, warmup: int, max_steps: int) -> float:
        return 1.0 - (1.0 - self.min_factor) * _share(step, warmup, max_steps)


@dataclass(frozen=True, kw_only=True)
class WarmupInverseSqrt(Fall):
    """Rise, then fall as 1/sqrt(step) (arXiv:1706.03762), but not below `min_factor`."""

    warmup: float = 4000
    """Steps of warm-up, above 0, as the fall begins there; below 1 a share of all steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup <= 0:
            raise ValueError(
                f"warmup ({self.warmup}) must be above 0 for an inverse square root; "
                f"set warmup to the step where the fall begins, such as 4000"
            )

    def fall(self, step: int, warmup: int, max_steps: int) -> float:
        return max(self.min_factor, math.sqrt((warmup + 1) / (step + 1)))


@dataclass(frozen=True, kw_only=True)
class WarmupStableDecay(Fall):
    """Rise, stay, and fall in the last part of the run (WSD, arXiv:2404.06395)."""

    decay: float = 0.2
    """Share of all steps in which the rate falls."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_factor("decay", self.decay)
        if self.warmup < 1 and self.warmup + self.decay > 1:
            raise ValueError(
                f"warmup ({self.warmup}) and decay ({self.decay}) overlap: "
                f"their sum must not exceed 1; lower one of them"
            )

    def fall(self, step: int, warmup: int, max_steps: int) -> float:
        start = max(warmup, max_steps - round(self.decay * max_steps))
        return 1.0 - (1.0 - self.min_factor) * _share(step, start, max_steps)


def _rise(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / (warmup + 1))


def _share(step: int, start: int, end: int) -> float:
    """How much of the way from start to end has been gone, within [0, 1]."""
    if step <= start:
        return 0.0
    return 1.0 if step >= end else (step - start) / (end - start)


def _warmup_steps(warmup: float, max_steps: int) -> int:
    if max_steps < 1:
        raise ValueError(
            f"max_steps ({max_steps}) must be at least 1: a schedule needs the length of the run; "
            f"set trainer.max_steps or trainer.max_epochs"
        )
    return round(warmup * max_steps) if warmup < 1 else round(warmup)


def _require_warmup(warmup: float) -> None:
    if not math.isfinite(warmup) or warmup < 0 or (warmup >= 1 and warmup != round(warmup)):
        raise ValueError(
            f"warmup ({warmup}) must be a whole number of steps or a share below 1; "
            f"set warmup to a value such as 500 or 0.02"
        )


def _require_factor(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(
            f"{name} ({value}) must lie between 0 and 1; set {name} to a share such as 0.1"
        )
