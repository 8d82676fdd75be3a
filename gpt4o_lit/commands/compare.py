"""`gpt4o-lit compare RUN RUN…`: metrics, settings that differ, and speed, side by side."""

import json
import os
from pathlib import Path
from typing import Any

from gpt4o_lit.experiments.record import Record
from gpt4o_lit.experiments.settings import flattened
from gpt4o_lit.experiments.tables import duration, figure, number, table
from gpt4o_lit.parse_errors import OneLineParser
from gpt4o_lit.run_directory import RunDirectory

EXAMPLE = """examples:
  gpt4o-lit compare runs/quickstart/TIME runs/quickstart/OTHER
  gpt4o-lit compare runs/ablations/norm_and_position/*/seed_0"""
PLACES = ("run_dir", "trainer.default_root_dir", "checkpoint.dirpath", "ckpt_path")
SHOWN = ("val/", "test/", "eval/")


def build_parser() -> OneLineParser:
    """The verb's options."""
    parser = OneLineParser(
        "compare",
        "Show runs side by side: the best and the last of each validation metric, the settings in "
        "which they differ, steps, time and speed.",
        epilog=EXAMPLE,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories, two at least")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    return parser


def main(argv: list[str]) -> int:
    """Read and print."""
    args = build_parser().parse_args(argv)
    if len(args.runs) < 2:
        raise ValueError("compare takes two runs at least; `gpt4o-lit runs` lists them")
    records = [Record(RunDirectory.existing(run).path) for run in args.runs]
    report = compared(records)
    print(json.dumps(report, indent=1) if args.json else _tables(report))
    return 0


def compared(records: list[Record]) -> dict[str, Any]:
    """Everything, as plain data: of each row, a value for each run."""
    settings = [_settings(record) for record in records]
    keys = list(dict.fromkeys(key for each in settings for key in each))
    of_keys = {key: [each.get(key) for each in settings] for key in keys}
    names = sorted({name for r in records for row in r.rows for name in row if _is_shown(name)})
    last = [record.last for record in records]
    metrics: dict[str, list[float | None]] = {}
    for name in names:
        for mode in _modes(name, records):
            best = [record.best(name, mode) for record in records]
            metrics[f"{name} {mode}"] = [pair[0] if pair else None for pair in best]
        metrics[f"{name} last"] = [values.get(name) for values in last]
    return {
        "runs": [str(record.path) for record in records],
        "metrics": metrics,
        "settings": {key: values for key, values in of_keys.items() if _differ(values)},
        "speed": {
            "status": [record.status for record in records],
            "steps": [record.step for record in records],
            "tokens_per_second": [record.speed for record in records],
            "peak_memory_gib": [values.get("perf/memory_gib") for values in last],
            "seconds": [record.seconds for record in records],
        },
    }


def _settings(record: Record) -> dict[str, Any]:
    """Dotted keys, but those that say where a run lies."""
    return {
        key: value
        for key, value in flattened(record.config).items()
        if key not in PLACES and not key.endswith(".save_dir")
    }


def _differ(values: list[Any]) -> bool:
    return any(value != values[0] for value in values)


def _is_shown(name: str) -> bool:
    return name.startswith(SHOWN)


def _modes(name: str, records: list[Record]) -> list[str]:
    """What is best of a metric is known of losses, and of what runs choose checkpoints by."""
    if name.endswith(("loss", "perplexity", "bits_per_byte")):
        return ["min"]
    return sorted({mode for metric, mode in (r.monitored for r in records) if metric == name})


def _tables(report: dict[str, Any]) -> str:
    short = _short([Path(run) for run in report["runs"]])
    speed = report["speed"]
    rows = [[name, *map(figure, values)] for name, values in report["metrics"].items()]
    blank = [""] * (1 + len(short))
    rows += [
        blank,
        *([key, *map(_setting, values)] for key, values in report["settings"].items()),
        blank,
    ]
    rows += [
        ["status", *speed["status"]],
        ["steps", *(number(value) for value in speed["steps"])],
        ["tokens/s", *(number(value) for value in speed["tokens_per_second"])],
        ["peak memory, GiB", *(number(value, ".2f") for value in speed["peak_memory_gib"])],
        ["time", *(duration(value) for value in speed["seconds"])],
    ]
    return table(["", *short], rows)


def _setting(value: Any) -> str:
    text = "-" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _short(paths: list[Path]) -> list[str]:
    """Paths without the folders that all have."""
    paths = [path.resolve() for path in paths]  # some may have been given from the root on
    common = os.path.commonpath(paths)
    return [os.path.relpath(path, common) if str(path) != common else str(path) for path in paths]
