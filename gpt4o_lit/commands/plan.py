"""`gpt4o-lit plan --config …`: what a fit would take, before it is run."""

import json
import math
from dataclasses import dataclass
from typing import Any

from gpt4o_lit.evaluation.devices import NAMES, find_device
from gpt4o_lit.evaluation.plan import Job, Outlook, Planner, strategies_for, what_would_fit
from gpt4o_lit.experiments.experiment import read_experiment
from gpt4o_lit.experiments.job import job_of
from gpt4o_lit.model.count import count_parameters
from gpt4o_lit.parse_errors import OneLineParser

EXAMPLE = """examples:
  gpt4o-lit plan --config quickstart --device cpu
  gpt4o-lit plan --config sst2 --config with/bf16 --devices 4 --device h200 --price 3
  gpt4o-lit plan --config quickstart --model.init_args.transformer model/llama_1b --device h100"""
CHANGES_NETWORK = (
    "Distillation", "Int8Training", "QuantizationAwareTraining", "StructuredPruning"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class End:
    """When a run ends, if that is known; tokens outrank steps."""

    steps: int | None
    tokens: float | None

    def hours(self, outlook: Outlook) -> float | None:
        """Of the whole run."""
        steps = self.steps
        if self.tokens is not None:
            steps = math.ceil(self.tokens / outlook.step_tokens)
        return None if steps is None else steps * outlook.step_seconds / 3600


def build_parser() -> OneLineParser:
    """The verb's options."""
    parser = OneLineParser(
        "plan",
        "Read an experiment as `fit` does, and tell without training: parameters, FLOPs, memory "
        "by kind for each strategy, the largest micro-batch, expected speed, hours and price. "
        "Every flag of `fit` may be given.",
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    add("--devices", type=int, default=1, help="how many, on machines of eight")
    add("--device", default="cpu", help=f"{', '.join(NAMES)}; default: the CPUs of this machine")
    add("--price", type=float, help="of a device and hour; without it there are device-hours")
    add("--tokens", type=float, help="to train on, such as 15e9; default: by trainer.max_steps")
    add("--json", action="store_true", help="the same as JSON")
    return parser


def main(argv: list[str]) -> int:
    """Play the step through and print."""
    args, flags = build_parser().parse_known_args(argv)
    if args.devices < 1:
        raise ValueError(f"devices ({args.devices}) must be at least 1; set --devices 1")
    experiment = read_experiment(flags)
    settings = experiment.settings
    job = job_of(experiment, find_device(args.device), args.devices)
    steps = settings.trainer.max_steps
    found, refused = _outlooks(job)
    if not any(outlook.largest for outlook in found.values()):
        raise ValueError(
            f"no strategy fits a row on {job.devices} x {job.device.name} "
            f"({job.device.memory / 1e9:,.0f} GB each); take {what_would_fit(job)}"
        )
    end = End(steps=None if steps in (None, -1) else steps, tokens=args.tokens)
    report = _report(job, found, refused, end, args.price)
    report["not_counted"] = _not_counted(settings)
    print(json.dumps(report) if args.json else _table(job, report))
    return 0


def _outlooks(job: Job) -> tuple[dict[str, Outlook], dict[str, str]]:
    """Of each strategy, or why it cannot be had."""
    planner = Planner(job)
    found, refused = {}, {}
    for name, strategy in strategies_for(job.devices).items():
        try:
            found[name] = planner.outlook(strategy)
        except ValueError as error:
            refused[name] = str(error)
    return found, refused


def _not_counted(settings: Any) -> list[str]:
    """Callbacks that change what is trained."""
    paths = [callback.class_path for callback in settings.trainer.callbacks or []]
    names = [path.rpartition(".")[2] for path in paths]
    return [name for name in names if name in CHANGES_NETWORK]


def _report(
    job: Job,
    found: dict[str, Outlook],
    refused: dict[str, str],
    end: End,
    price: float | None,
) -> dict[str, Any]:
    """Everything, as plain data."""
    micro = job.micro
    return {
        "parameters": count_parameters(job.config)["total"],
        "flops_per_token": next(iter(found.values())).token_flops,
        "device": job.device.name,
        "devices": job.devices,
        "rows": micro.rows,
        "tokens_of_a_row": micro.target + micro.source,
        "steps": end.steps,
        "tokens": end.tokens,
        "strategies": {name: _costs(job, outlook, end, price) for name, outlook in found.items()},
        "refused": refused,
    }


def _costs(job: Job, outlook: Outlook, end: End, price: float | None) -> dict[str, Any]:
    speed = outlook.step_tokens / outlook.step_seconds
    hours = end.hours(outlook)
    return {
        "bytes": {kind: round(number) for kind, number in outlook.memory.items()},
        "fits": outlook.fits,
        "largest_rows": outlook.largest,
        "limit": outlook.limit,
        "tokens_per_second": speed,
        "mfu": speed * outlook.token_flops / (job.devices * getattr(job.device, job.rate)),
        "hours": hours,
        "device_hours": None if hours is None else hours * job.devices,
        "price": None if hours is None or price is None else hours * job.devices * price,
    }


def _table(job: Job, report: dict[str, Any]) -> str:
    """As a person reads it."""
    lines = [
        f"{report['parameters'] / 1e6:,.1f}M parameters, "
        f"{report['flops_per_token'] / 1e6:,.1f} MFLOPs a token in training",
        f"{job.devices} x {job.device.name}, {job.device.memory / 1e9:,.0f} GB; micro-batch of "
        f"{job.micro.rows} rows of {report['tokens_of_a_row']:,} tokens, x {job.accumulate}",
        "",
    ]
    kinds = list(next(iter(report["strategies"].values()))["bytes"])
    titles = [*kinds, "together", "largest", "tokens/s", "MFU", "hours", "device h", "price"]
    lines.append(f"{'GB on a device':<16}" + "".join(f"{title:>12}" for title in titles))
    for name, costs in report["strategies"].items():
        used = list(costs["bytes"].values())
        cells = [f"{number / 1e9:,.2f}" for number in [*used, sum(used)]]
        cells += [f"{costs['largest_rows']:,}", f"{costs['tokens_per_second']:,.0f}"]
        cells.append(f"{costs['mfu']:.0%}")
        for number in (costs["hours"], costs["device_hours"], costs["price"]):
            cells.append("-" if number is None else f"{number:,.2f}")
        mark = "" if costs["fits"] else "  does not fit"
        lines.append(f"{name:<16}" + "".join(f"{cell:>12}" for cell in cells) + mark)
    lines += [f"{name:<16}  {why}" for name, why in report["refused"].items()]
    limits = {name: costs["limit"] for name, costs in report["strategies"].items()}
    lines += ["", "largest: rows of a micro-batch; what limits them is " + _told(limits)]
    if report["steps"] is None and report["tokens"] is None:
        lines.append("hours need an end: --tokens, or --trainer.max_steps")
    if report["not_counted"]:
        lines.append(f"not counted: what {', '.join(report['not_counted'])} changes")
    return "\n".join(lines)


def _told(limits: dict[str, str]) -> str:
    by_kind: dict[str, list[str]] = {}
    for name, kind in limits.items():
        by_kind.setdefault(kind, []).append(name)
    return "; ".join(f"{kind} ({', '.join(names)})" for kind, names in by_kind.items())
