"""The tables of a report, as blocks of its page and as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from gpt4o_lit.experiments.document import Table
from gpt4o_lit.experiments.findings import Finding, figure, signed, told_p
from gpt4o_lit.experiments.results import Study
from gpt4o_lit.experiments.run_costs import PARETO, RunCosts
from gpt4o_lit.experiments.statistics import spread


def variants_table(study: Study, found: Mapping[str, Finding]) -> Table:
    """What came out, a row for each variant."""
    numbers = ("runs", "mean", "deviation", "range", "difference", "95% interval", "p", "Holm's p")
    rows = []
    for name in study.variants:
        values = list(study.values(name).values())
        runs = sum(run.variant == name for run in study.runs)
        row = [name, str(len(values)) if len(values) == runs else f"{len(values)} of {runs}"]
        if values:
            told = spread(values)
            deviation = "" if told.deviation is None else figure(told.deviation)
            extent = f"{figure(told.smallest)} to {figure(told.largest)}"
            row += [figure(told.mean), deviation, extent if told.count > 1 else "one seed"]
        else:
            row += [""] * 3
        rows.append([*row, *(_compared(found[name]) if name in found else [""] * 4 + ["the base"])])
    return Table(["variant", *numbers, "in words"], rows, numbers)


def _compared(each: Finding) -> list[str]:
    told = each.comparison
    return [
        "" if told.difference is None else signed(told.difference),
        "" if told.low is None or told.high is None
        else f"{signed(told.low)} to {signed(told.high)}",
        "" if told.p is None else told_p(told.p),
        "" if each.corrected is None else told_p(each.corrected),
        each.verdict,
    ]  # fmt: skip


RUN_COLUMNS = ("variant", "seed", "value", "steps", "tokens", "seconds", "flops", "bytes",
               "training_speed", "writing_speed", "directory", "left_out")  # fmt: skip


def _run_rows(study: Study, costs: RunCosts) -> list[dict[str, str | int | float | None]]:
    known = {run.path: cost for group in costs.values() for run, cost in group}
    rows = []
    for run in study.runs:
        row: dict[str, Any] = {"variant": run.variant, "seed": run.seed}
        if run.left_out is None:
            row |= {"value": study.value(run), **vars(known[run.path])}
        rows.append(row | {"directory": str(run.path), "left_out": run.left_out})
    return rows


def runs_table(study: Study, costs: RunCosts) -> Table:
    """Every run, with what it took and why it is left out."""
    names = {"value": study.metric, "training_speed": "tokens/s, training",
             "writing_speed": "tokens/s, writing", "left_out": "left out because"}  # fmt: skip
    rows = _run_rows(study, costs)
    columns = [name for name in RUN_COLUMNS if any(row.get(name) is not None for row in rows)]
    cells = [[_cell(name, row.get(name)) for name in columns] for row in rows]
    texts = ("variant", "directory", "left_out")
    numbers = [names.get(name, name) for name in columns if name not in texts]
    shown = [names.get(name, name) for name in columns]
    return Table(shown, cells, numbers, ["directory", names["left_out"]])


def variants_csv(study: Study, found: Mapping[str, Finding], costs: RunCosts) -> str:
    """The variants in full precision."""
    rows = []
    for name in study.variants:
        values = list(study.values(name).values())
        row: dict[str, Any] = {"variant": name}
        row["runs"] = sum(run.variant == name for run in study.runs)
        if values:
            row |= vars(spread(values))
        if name in found:
            each = found[name]
            told = {**vars(each.comparison), "common_seeds": each.comparison.count}
            del told["count"]
            row |= told | {"holm_p": each.corrected, "verdict": each.verdict}
        for field in PARETO:
            known = [getattr(c, field) for _, c in costs[name] if getattr(c, field) is not None]
            row[field] = sum(known) / len(known) if known else None
        rows.append(row)
    return _csv(rows)


def runs_csv(study: Study, costs: RunCosts) -> str:
    """The runs in full precision."""
    return _csv(_run_rows(study, costs), RUN_COLUMNS)


def _csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    file = io.StringIO()
    names = columns or list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _cell(name: str, value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if name == "value":
        return figure(value)
    if name == "flops":
        return f"{value:.3g}"
    if name == "seconds":
        return f"{value:,.1f}"
    return f"{value:,.0f}"
