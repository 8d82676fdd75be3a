"""`gpt4o-lit ablate GRID`: a base, what varies, seeds; each an ordinary run."""

import signal
import sys
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from gpt4o_lit.experiments.ablation import HOME, Ablation, locked
from gpt4o_lit.experiments.cost import Estimate, cost_of, measured, planned
from gpt4o_lit.experiments.grid import find_grid, read_grid
from gpt4o_lit.experiments.launch import Machine
from gpt4o_lit.experiments.probe import clear, require_metric
from gpt4o_lit.experiments.resolve import resolve_grid
from gpt4o_lit.experiments.schedule import Outcome, run_all
from gpt4o_lit.experiments.tables import duration, number, table
from gpt4o_lit.parse_errors import OneLineParser

EXAMPLE = """examples:
  gpt4o-lit ablate norm_and_position --dry_run
  gpt4o-lit ablate grids/mine.yaml --parallel 2
  gpt4o-lit ablate mine.yaml --cluster slurm --cluster_options slurm_partition=gpu timeout_min=90
The same command again goes on where it was stopped: what has ended is not run again."""


def build_parser() -> OneLineParser:
    """The verb's options."""
    parser = OneLineParser(
        "ablate",
        "Run a base experiment and its variants, each with each seed, in run directories of their "
        "own. `gpt4o-lit configs` lists the packaged grids.",
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    add("grid", help="a grid file, or the name of a packaged one")
    add("--dir", type=Path, help=f"where runs lie as VARIANT/seed_S; default: {HOME}/NAME")
    add("--dry_run", action="store_true", help="show the plan and its cost, and run nothing")
    add("--parallel", type=int, help="runs side by side; default: 1, on SLURM all")
    add("--threads", type=int, help="CPU threads of a run; default: the cores, shared out")
    add("--device", default="cpu", help="of the time that --dry_run tells, as in `plan`")
    add("--cluster", choices=("slurm", "local"), help="submit runs as jobs (pip: [cluster])")
    add(
        "--cluster_options", nargs="+", default=[], metavar="KEY=VALUE",
        help="submitit's, such as slurm_partition=gpu timeout_min=60 gpus_per_node=1",
    )  # fmt: skip
    return parser


def main(argv: list[str]) -> int:
    """Check everything, then run what is left to run."""
    args = build_parser().parse_args(argv)
    for name in ("parallel", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} ({value}) must be at least 1")
    grid = read_grid(find_grid(args.grid))
    directory = args.dir or HOME / grid.name
    ablation = Ablation(grid=grid, directory=directory, variants=resolve_grid(grid))
    ablation.require_unchanged()
    if args.dry_run:
        print(_plan(ablation, args))
        return 0
    machine = Machine(parallel=args.parallel or 1, threads=args.threads)
    cluster = None
    if args.cluster:
        from gpt4o_lit.experiments.cluster import Cluster  # which is an extra

        cluster = Cluster(args.cluster, directory / "jobs", args.cluster_options)
    with locked(directory, _tell):
        clear(directory)
        ablation.require_unchanged()
        if cluster is None:
            ablation.require_idle()
        ablation.write()
        require_metric(ablation, machine)
        return _run(ablation, machine, cluster, args)


def _run(ablation: Ablation, machine: Machine, cluster: Any, args: Any) -> int:
    """Run what has not ended, and tell what came of all."""
    runs = ablation.runs
    left = [run for run in runs if run.record.status != "finished"]
    if len(left) < len(runs):
        _tell(f"{len(runs) - len(left)} of {len(runs)} runs have ended already")
    parallel, begun, done = machine.parallel, time.monotonic(), []

    def ended(outcome: Outcome) -> None:
        done.append(outcome)
        _tell(_line(ablation, outcome, len(runs) - len(left) + len(done), parallel))

    def start(run: Any, slot: int) -> Any:
        return machine.start(run.arguments(), run.path, slot)

    if cluster is not None:
        start, parallel = cluster.start, args.parallel or cluster.default_parallel(len(left))
    try:
        run_all(left, start, parallel, ended)
    except KeyboardInterrupt:
        again = f"gpt4o-lit ablate {args.grid}" + (f" --dir {args.dir}" if args.dir else "")
        _tell(f"\nstopped; go on: {again}")
        return 128 + signal.SIGINT
    failed = [outcome for outcome in done if outcome.error is not None]
    print(_summary(ablation))
    _tell(f"{duration(time.monotonic() - begun)} for {len(done)} runs")
    if failed:
        _tell(f"{len(failed)} did not end; the same command tries them again")
    print(f"next: gpt4o-lit report {ablation.directory}")
    return 1 if failed else 0


def _line(ablation: Ablation, outcome: Outcome, count: int, parallel: int) -> str:
    grid, run = ablation.grid, outcome.run
    place = f"[{count}/{len(ablation.runs)}] {run.told}"
    if outcome.error is not None:
        return f"{place}: failed: {outcome.error}; all that it printed: {run.path}/run.log"
    best = run.record.best(grid.metric, grid.mode)
    value = f"{best[0]:.4f}" if best else "was not logged"
    left = measured(ablation, parallel)
    rest = f"; about {duration(left.seconds)} left" if left and left.seconds else ""
    return f"{place}: {grid.metric} {value} in {duration(outcome.seconds)}{rest}"


def _plan(ablation: Ablation, args: Any) -> str:
    """Every variant with what it changes, and the cost of all."""
    grid, runs = ablation.grid, ablation.runs
    costs = {variant.name: cost_of(variant) for variant in ablation.variants}
    base = costs.get(grid.compare_to)
    rows, notes = [], []
    for variant in ablation.variants:
        cost = costs[variant.name]
        own = [run for run in runs if run.variant == variant.name]
        ended = sum(run.record.status == "finished" for run in own)
        figures = [number(cost.steps), number(cost.tokens), number(cost.flops, ".2e")]
        rows.append([variant.name, f"{ended}/{len(own)}", *figures, "; ".join(variant.changes)])
        if base and (cost.steps, cost.tokens) != (base.steps, base.tokens):
            notes.append(f"{variant.name} has a budget of its own")
    lines = [f"{grid.name}: {len(ablation.variants)} variants x {len(grid.seeds)} seeds"]
    titles = ["variant", "ended", "steps", "tokens", "FLOPs", "changes"]
    lines += [table(titles, rows, left=["changes"]), *notes]
    totals = [[costs[run.variant].steps, costs[run.variant].tokens, costs[run.variant].flops]
              for run in runs]  # fmt: skip
    steps, tokens, flops = (
        None if None in column else sum(x for x in column if x is not None)
        for column in zip(*totals, strict=True)
    )
    together = f"{number(steps)} steps, {number(tokens)} tokens, {number(flops, '.2e')} FLOPs"
    lines.append(f"together {len(runs)} runs: {together}")
    lines.append(_time(measured(ablation, args.parallel or 1) or planned(ablation, args.device)))
    lines.append(f"runs lie in {ablation.directory}")
    return "\n".join(lines)


def _time(estimate: Estimate | None) -> str:
    if estimate is None:
        return "time: not known before a run has ended"
    return f"time left: about {duration(estimate.seconds)} ({estimate.source})"


def _summary(ablation: Ablation) -> str:
    """The metric of each variant: mean over seeds of the best of each run."""
    grid = ablation.grid
    values: dict[str, list[float]] = {variant.name: [] for variant in ablation.variants}
    for run in ablation.runs:
        best = run.record.best(grid.metric, grid.mode)
        if run.record.status == "finished" and best is not None:
            values[run.variant].append(best[0])
    base = values[grid.compare_to]
    rows = []
    for name, found in values.items():
        mean = number(fmean(found) if found else None, ".4f")
        spread = number(stdev(found) if len(found) > 1 else None, ".4f")
        against = number(fmean(found) - fmean(base) if found and base else None, "+.4f")
        rows.append([name, f"{len(found)}/{len(grid.seeds)}", mean, spread, against])
    return "\n" + table(["variant", "runs", grid.metric, "sd", f"- {grid.compare_to}"], rows)


def _tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
