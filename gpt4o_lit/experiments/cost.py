"""What a grid will take, before it is run: steps, tokens, FLOPs, and time as far as it is known."""

from dataclasses import dataclass
from statistics import median
from typing import Any

from gpt4o_lit.evaluation.devices import find_device
from gpt4o_lit.evaluation.plan import Planner, strategies_for
from gpt4o_lit.experiments.ablation import Ablation
from gpt4o_lit.experiments.job import described, job_of, micro_batch
from gpt4o_lit.experiments.resolve import Variant
from gpt4o_lit.model.count import training_flops


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one run; None stands for what nothing tells before it is run."""

    steps: int | None
    tokens: int | None
    """Most that it reads; rows that are not full have fewer."""
    flops: float | None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds of the runs that are left, and what they are known from."""

    seconds: float
    source: str


def cost_of(variant: Variant) -> Cost:
    """Counted from the config alone."""
    experiment = variant.experiment
    trainer = experiment.settings.trainer
    steps = None if trainer.max_steps in (None, -1) else int(trainer.max_steps)
    try:
        config = described(experiment.model, experiment.datamodule)
        micro = micro_batch(experiment.model, experiment.datamodule, trainer.precision, on_cpu=True)
    except ValueError:
        return Cost(steps=steps, tokens=None, flops=None)
    rows = micro.rows * (trainer.accumulate_grad_batches or 1) * _devices(trainer)
    flops = training_flops(config, target=micro.target, asked=micro.asked, source=micro.source)
    if steps is None:
        return Cost(steps=None, tokens=None, flops=None)
    return Cost(
        steps=steps,
        tokens=steps * rows * (micro.target + micro.source),
        flops=steps * rows * flops,
    )


def measured(ablation: Ablation, parallel: int) -> Estimate | None:
    """From runs of this ablation that have ended; of another variant by its FLOPs.

    Returns:
        None: no run has ended.
    """
    costs = {variant.name: cost_of(variant) for variant in ablation.variants}
    took: dict[str, list[float]] = {}
    left = []
    for run in ablation.runs:
        record = run.record
        if record.status != "finished":
            left.append(run.variant)
        elif record.seconds is not None:
            took.setdefault(run.variant, []).append(record.seconds)
    if not took:
        return None
    known = {name: median(seconds) for name, seconds in took.items()}

    def of(name: str) -> float:
        own = costs[name].flops
        return median(
            seconds * _ratio(own, costs[other].flops)
            for other, seconds in known.items()
            if other == name or name not in known
        )

    return Estimate(
        seconds=sum(of(name) for name in left) / parallel,
        source=f"measured by {sum(map(len, took.values()))} runs that have ended",
    )


def planned(ablation: Ablation, device: str) -> Estimate | None:
    """From the peak of a device: training steps one after the other, and nothing else.

    Returns:
        None: nothing tells how large a variant is, or how long it runs.
    """
    found = find_device(device)
    seconds = 0.0
    for variant in ablation.variants:
        steps = cost_of(variant).steps
        if steps is None:
            return None
        try:
            planner = Planner(job_of(variant.experiment, found))
        except ValueError:
            return None
        left = [
            run
            for run in ablation.runs
            if run.variant == variant.name and run.record.status != "finished"
        ]
        seconds += len(left) * steps * planner.step_seconds(strategies_for(1)["one"])
    return Estimate(seconds=seconds, source=f"training steps alone, planned for {found.name}")


def _ratio(own: float | None, other: float | None) -> float:
    return own / other if own and other else 1.0


def _devices(trainer: Any) -> int:
    """`auto` counts as one, which it is on a CPU."""
    devices = trainer.devices
    count = len(devices) if isinstance(devices, list) else devices
    return int(count) * int(trainer.num_nodes) if str(count).isdigit() else 1
