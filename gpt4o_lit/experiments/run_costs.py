"""What a run took, and what its network takes: tokens, seconds, FLOPs, bytes, speed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from gpt4o_lit.experiments.run_files import Run
from gpt4o_lit.run_directory import PACKED, deployment_of

POST_TRAINING = "gpt4o_lit.callbacks.PostTrainingQuantization"


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Of one run; None where it did not say."""

    steps: int
    tokens: float | None
    seconds: float | None
    """Of training alone: validations, samples and saves take none of it."""
    flops: float | None
    bytes: float | None
    """Of the weights; of those in RUN/compressed where there is such a directory."""
    training_speed: float | None
    """Tokens per second, the median of what was logged."""
    writing_speed: float | None
    """Tokens written per second at batch 1, as the model card or the ledger measured it."""


RunCosts = Mapping[str, Sequence[tuple[Run, Costs]]]
"""Finished runs with what they took, by variant."""
PARETO = {
    "bytes": ("bytes of the weights", True),
    "training_speed": ("tokens trained on per second", False),
    "writing_speed": ("tokens written per second, batch 1", False),
}
"""A field of Costs, what it is, and whether less of it is better."""


def costs_of(run: Run) -> Costs:
    """What the files of a run say."""
    speeds = [speed for _, speed in run.metrics.get("perf/tokens_per_second", ())]
    left = deployment_of(run.path, run.manifest)
    return Costs(
        steps=run.steps,
        tokens=_whole(run, "tokens"),
        seconds=_whole(run, "seconds"),
        flops=_whole(run, "flops"),
        bytes=left.bytes,
        training_speed=median(speeds) if speeds else None,
        writing_speed=left.writing_speed,
    )


def taken_by(run: Run, what: str, steps: Sequence[int]) -> list[float] | None:
    """How many tokens, seconds or flops a run had taken after so many steps; None if not logged.

    Between two logged rows it grows evenly, and behind the last one as it had on average.
    """
    points = run.metrics.get(f"perf/{what}")
    if not points:
        return None
    (known, amounts), (end, whole) = zip(*[(0, 0.0), *points], strict=True), points[-1]
    inside = np.interp(steps, known, amounts)
    return [whole * at / end if at > end else float(x) for at, x in zip(steps, inside, strict=True)]


def _whole(run: Run, what: str) -> float | None:
    """What a run took until it last logged anything."""
    points = run.metrics.get(f"perf/{what}")
    return points[-1][1] * run.steps / points[-1][0] if points else None


def is_rounded_after_validation(run: Run) -> bool:
    """Whether the weights in RUN/compressed are not those that the run's validations measured."""
    rounds = any(value == POST_TRAINING for value in run.config.values())
    return rounds and (run.path / PACKED).is_dir()
