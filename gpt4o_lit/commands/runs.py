"""`gpt4o-lit runs [DIR]`: every run there, with its status, step, best metric and age."""

import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gpt4o_lit.experiments.record import Record, records_below
from gpt4o_lit.experiments.tables import duration, table
from gpt4o_lit.parse_errors import OneLineParser

EXAMPLE = """examples:
  gpt4o-lit runs
  gpt4o-lit runs runs/ablations/norm_and_position --metric val/loss --sort metric"""
SORTS = ("age", "metric", "name")


def build_parser() -> OneLineParser:
    """The verb's options."""
    parser = OneLineParser(
        "runs",
        "List the runs under a folder: running, finished, stopped (told to, or killed) or failed.",
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    add("folder", nargs="?", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    add("--metric", help="default: what each run chooses its best checkpoint by")
    add("--mode", choices=("min", "max"), help="which value of it is best; default: the run's own")
    add("--sort", choices=SORTS, default="age", help="newest, best or alphabetically first")
    add("--json", action="store_true", help="the same as JSON")
    return parser


def main(argv: list[str]) -> int:
    """Read and print."""
    args = build_parser().parse_args(argv)
    records = list(records_below(args.folder))
    if args.metric is not None:
        _require_known(args.metric, records)
    found = [described(record, args.metric, args.mode) for record in records]
    found.sort(key=_order(args.sort))
    if args.json:
        print(json.dumps(found, indent=1))
    elif not found:
        print(f"there are no runs in {args.folder}; `gpt4o-lit fit` makes them in runs/")
    else:
        titles = ["run", "status", "step", "best", "age", "error"]
        print(table(titles, [_row(each) for each in found], left=["status", "error"]))
    return 0


def _require_known(metric: str, records: list[Record]) -> None:
    """Refuse a metric that no run has logged, if any has logged anything."""
    known = sorted({name for record in records for name in record.last})
    if known and metric not in known:
        near = get_close_matches(metric, known, 1)
        judged = ", ".join(name for name in known if not name.startswith("perf/"))
        mend = f"did you mean '{near[0]}'?" if near else f"choose one of {judged}"
        raise ValueError(f"--metric: no run has logged '{metric}'; {mend}")


def described(record: Record, metric: str | None, mode: str | None) -> dict[str, Any]:
    """A run as plain data; None for what there is not."""
    own_metric, own_mode = record.monitored
    metric, mode = metric or own_metric, mode or own_mode
    best = record.best(metric, mode)
    return {
        "run": str(record.path),
        "status": record.status,
        "step": record.step,
        "steps": record.steps,
        "metric": metric,
        "mode": mode,
        "best": best[0] if best else None,
        "best_step": best[1] if best else None,
        "age_seconds": record.age,
        "error": record.error,
    }


def _row(run: dict[str, Any]) -> list[str]:
    best = "-"
    if run["best"] is not None:
        best = f"{run['metric']} {run['best']:.4f} @ {run['best_step']:,}"
    step = f"{run['step']:,}" + (f"/{run['steps']:,}" if run["steps"] else "")
    return [run["run"], run["status"], step, best, duration(run["age_seconds"]), run["error"] or ""]


def _order(by: str) -> Any:
    def key(run: dict[str, Any]) -> Any:
        if by == "name":
            return run["run"]
        if by == "metric":
            value = run["best"]
            return (value is None, 0 if value is None else value * (-1) ** (run["mode"] == "max"))
        age = run["age_seconds"]
        return (age is None, age or 0, run["run"])

    return key
