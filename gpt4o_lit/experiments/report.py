"""A study as a report: what came out, how sure that is, and what should be known of it."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4o_lit.experiments import report_plots
from gpt4o_lit.experiments.differences import (
    cautions,
    config_differences,
    environment_differences,
    short,
)
from gpt4o_lit.experiments.document import (
    Block,
    Figure,
    Heading,
    Points,
    Table,
    Text,
    to_html,
    to_markdown,
)
from gpt4o_lit.experiments.results import Run, Study
from gpt4o_lit.experiments.run_costs import Costs, costs_of, is_rounded_after_validation
from gpt4o_lit.experiments.statistics import LEVEL, Comparison, compare, holm, spread

MOST_DIFFERENCES = 12
MOST_SENTENCES = 12


@dataclass(frozen=True)
class Finding:
    """A variant against the base, as people read it."""

    comparison: Comparison
    corrected: float | None
    """p, corrected for all variants that were tested."""
    verdict: str

    @property
    def is_evidence(self) -> bool:
        """Whether the corrected p is below the level."""
        return self.corrected is not None and self.corrected < LEVEL


def findings(study: Study) -> dict[str, Finding]:
    """What can be said of each variant but the base; in words too."""
    base = study.values(study.base)
    told = {
        name: compare(study.values(name), base) for name in study.variants if name != study.base
    }
    tested = {name: each.p for name, each in told.items() if each.p is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {
        name: Finding(each, corrected.get(name), _verdict(study, each, corrected.get(name)))
        for name, each in told.items()
    }


def _verdict(study: Study, told: Comparison, corrected: float | None) -> str:
    if told.difference is None:
        return f"not compared: no seed in common with {study.base}"
    less = told.difference < 0
    word = "better" if less == (study.mode == "min") else "worse"
    if told.count == 1:
        return f"{word if told.difference else 'equal'} with the one seed: no interval and no test"
    if corrected is None:
        alike = "equal" if told.difference == 0 else f"{word} by the same at every seed"
        return f"{alike}: seeds show no spread to judge by"
    if corrected < LEVEL:
        return f"{word}: evidence at {LEVEL:.0%}"
    few = ", and so few seeds would show only a very large one" if told.count < 4 else ""
    alone = told.p is not None and told.p < LEVEL
    lost = ", once p is corrected" if alone else ""
    return f"no evidence of a difference{lost}{few}"


def write_report(study: Study, directory: Path, command: str) -> str:
    """Write report.html, report.md, variants.csv, runs.csv and plots/; what came out in short.

    Args:
        command: The command line that asks for this report.
    """
    costs = {
        name: [(run, costs_of(run)) for run in study.finished(name)] for name in study.variants
    }
    found = findings(study)
    comparisons = {name: each.comparison for name, each in found.items()}
    pictures = report_plots.draw(study, comparisons, costs)
    title = f"{study.name}: {len(study.variants)} variants, {len(study.runs)} runs"
    blocks = _blocks(study, found, costs, pictures, command)
    (directory / "plots").mkdir(parents=True, exist_ok=True)
    for group in pictures.values():
        for each in group:
            (directory / "plots" / f"{each.name}.png").write_bytes(each.png)
    (directory / "report.html").write_text(to_html(title, blocks), encoding="utf-8")
    (directory / "report.md").write_text(to_markdown(title, blocks), encoding="utf-8")
    (directory / "variants.csv").write_text(_variants_csv(study, found, costs), encoding="utf-8")
    (directory / "runs.csv").write_text(_runs_csv(study, costs), encoding="utf-8")
    return "\n".join([*(f"! {each}" for each in cautions(study)), *in_short(study, found)])


def _blocks(
    study: Study,
    found: Mapping[str, Finding],
    costs: dict[str, list[tuple[Run, Costs]]],
    pictures: Mapping[str, Sequence[Figure]],
    command: str,
) -> list[Block]:
    blocks: list[Block] = [Text(_judged_by(study))]
    warnings = cautions(study)
    if warnings:
        blocks += [Heading("Before you read on"), Points(warnings, warn=True)]
    blocks += [Heading("What came out"), Points(in_short(study, found))]
    blocks += [_variants_table(study, found), *pictures["values"]]
    blocks += [Heading("How sure is it?"), Points(_assumptions(study, found))]
    blocks += [Heading("As training went on"), *pictures["curves"]]
    if not any(name.endswith("by_tokens") for name in (each.name for each in pictures["curves"])):
        blocks.append(Text("No run logged perf/tokens: there are no curves by tokens."))
    blocks += [Heading("Quality against bytes and speed"), *pictures["pareto"]]
    blocks.append(Text(_cost_words(study)))
    blocks += _what_differs(study)
    blocks += [Heading("All runs"), _runs_table(study, costs), Text(f"Made by: {command}")]
    return blocks


def _judged_by(study: Study) -> str:
    better = "less" if study.mode == "min" else "more"
    when = {
        "last": "at the last validation of each run",
        "best": "at the best validation of each run, which flatters: the luckiest of several "
        "looks at the same text is taken, and more of them are luckier",
    }[study.at]
    return (
        f"Judged by {study.metric}, {better} is better, {when}. The base is {study.base}; "
        f"{len(study.finished())} of {len(study.runs)} runs count."
    )


def in_short(study: Study, found: Mapping[str, Finding]) -> list[str]:
    """A sentence for each variant; of many, for those alone of which there is evidence."""
    lines, rest = [], 0
    for name, each in found.items():
        if len(found) > MOST_SENTENCES and not each.is_evidence:
            rest += 1
            continue
        told = each.comparison
        size = "" if told.difference is None else f"{_signed(told.difference)}, "
        if told.low is not None and told.high is not None:
            size = f"{size}95% interval {_signed(told.low)} to {_signed(told.high)}, "
        p = "" if each.corrected is None else f" (corrected p {_p(each.corrected)})"
        lines.append(f"{name}: {size}{each.verdict}{p}.")
    if rest:
        lines.append(f"No evidence of a difference for the other {rest} of {len(found)} variants.")
    return lines or [f"There is no variant but {study.base}: nothing to compare."]


def _variants_table(study: Study, found: Mapping[str, Finding]) -> Table:
    numbers = ("runs", "mean", "deviation", "range", "difference", "95% interval", "p", "Holm's p")
    rows = []
    for name in study.variants:
        values = list(study.values(name).values())
        runs = sum(run.variant == name for run in study.runs)
        row = [name, str(len(values)) if len(values) == runs else f"{len(values)} of {runs}"]
        if values:
            told = spread(values)
            deviation = "" if told.deviation is None else _number(told.deviation)
            extent = f"{_number(told.smallest)} to {_number(told.largest)}"
            row += [_number(told.mean), deviation, extent if told.count > 1 else "one seed"]
        else:
            row += [""] * 3
        rows.append([*row, *(_compared(found[name]) if name in found else [""] * 4 + ["the base"])])
    return Table(["variant", *numbers, "in words"], rows, numbers)


def _compared(each: Finding) -> list[str]:
    told = each.comparison
    return [
        "" if told.difference is None else _signed(told.difference),
        "" if told.low is None or told.high is None
        else f"{_signed(told.low)} to {_signed(told.high)}",
        "" if told.p is None else _p(told.p),
        "" if each.corrected is None else _p(each.corrected),
        each.verdict,
    ]  # fmt: skip


def _assumptions(study: Study, found: Mapping[str, Finding]) -> list[str]:
    tested = sum(each.corrected is not None for each in found.values())
    counts = [each.comparison.count for each in found.values()]
    told = [
        f"A difference is variant minus {study.base}, seed by seed; what a seed does to both alike "
        "falls out.",
        "The interval and the p are of the paired t-test (two-sided). It assumes that differences "
        "by seed are independent draws from a normal distribution, which a handful of seeds can "
        "neither show nor refute.",
        f"p is corrected by Holm's method for {tested} comparisons, so that the chance of any "
        f"false alarm among them is at most {LEVEL:.0%}; an interval is for its variant alone."
        if tested
        else "Nothing could be tested: that takes two seeds of a variant that the base has too.",
        "No evidence does not mean equal: the interval tells which differences are still possible.",
        "Seeds vary what is random in training. That the text is what it is, and that others would "
        "give other figures, is in no interval.",
    ]
    if 1 in counts:
        told.append("One seed gives no interval: nothing tells a difference from chance.")
    if any(1 < count < 4 for count in counts):
        told.append(
            "With 2 or 3 seeds the interval is wide: 12.7 standard errors each way with 2, 4.3 "
            "with 3; 2.8 with 5."
        )
    return told


def _cost_words(study: Study) -> str:
    rounded = [run for run in study.finished() if is_rounded_after_validation(run)]
    words = (
        "Bytes are those of the weights, packed ones where the run wrote compressed/. Writing "
        "speed is known where the model card or the ledger measured it. Speeds are comparable only "
        "if nothing else ran on the machine."
    )
    if rounded:
        words += (
            f" Rounded after their last validation and so left out of bytes and writing speed: "
            f"{', '.join(str(run.path) for run in rounded)}; `gpt4o-lit ledger` measures both."
        )
    return words


def _what_differs(study: Study) -> list[Block]:
    blocks: list[Block] = [Heading("What differs")]
    unlike = config_differences(study)
    rows, shown = [], dict.fromkeys(study.variants, 0)
    for variant, key, base, value in unlike:
        shown[variant] += 1
        if shown[variant] <= MOST_DIFFERENCES:
            rows.append([variant, key, str(base), str(value)])
    if rows:
        columns = ["variant", "key", f"in {study.base}", "here"]
        blocks.append(Table(columns, rows, long=columns[1:]))
    for variant, count in shown.items():
        if count > MOST_DIFFERENCES:
            blocks.append(Text(f"{variant} differs in {count - MOST_DIFFERENCES} keys more."))
    if not unlike:
        blocks.append(Text("The configs are the same but for seeds, names and places."))
    elsewhere = environment_differences(study)
    rows = [
        [name, short(value), str(len(runs)), ", ".join(str(run.path) for run in runs[:3])
         + (", …" if len(runs) > 3 else "")]
        for name, by_value in elsewhere.items()
        for value, runs in by_value.items()
    ]  # fmt: skip
    if rows:
        blocks.append(Table(["environment", "value", "runs", "which"], rows, ["runs"], ["which"]))
    else:
        blocks.append(Text("Data, code, versions and hardware are the same in all finished runs."))
    return blocks


RUN_COLUMNS = ("variant", "seed", "value", "steps", "tokens", "seconds", "flops", "bytes",
               "training_speed", "writing_speed", "directory", "left_out")  # fmt: skip


def _run_rows(
    study: Study, costs: dict[str, list[tuple[Run, Costs]]]
) -> list[dict[str, str | int | float | None]]:
    known = {run.path: cost for group in costs.values() for run, cost in group}
    rows = []
    for run in study.runs:
        row: dict[str, Any] = {"variant": run.variant, "seed": run.seed}
        if run.left_out is None:
            row |= {"value": study.value(run), **vars(known[run.path])}
        rows.append(row | {"directory": str(run.path), "left_out": run.left_out})
    return rows


def _runs_table(study: Study, costs: dict[str, list[tuple[Run, Costs]]]) -> Table:
    names = {"value": study.metric, "training_speed": "tokens/s, training",
             "writing_speed": "tokens/s, writing", "left_out": "left out because"}  # fmt: skip
    rows = _run_rows(study, costs)
    columns = [name for name in RUN_COLUMNS if any(row.get(name) is not None for row in rows)]
    cells = [[_cell(name, row.get(name)) for name in columns] for row in rows]
    texts = ("variant", "directory", "left_out")
    numbers = [names.get(name, name) for name in columns if name not in texts]
    shown = [names.get(name, name) for name in columns]
    return Table(shown, cells, numbers, ["directory", names["left_out"]])


def _variants_csv(
    study: Study, found: Mapping[str, Finding], costs: dict[str, list[tuple[Run, Costs]]]
) -> str:
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
        for field in report_plots.PARETO:
            known = [getattr(c, field) for _, c in costs[name] if getattr(c, field) is not None]
            row[field] = sum(known) / len(known) if known else None
        rows.append(row)
    return _csv(rows)


def _runs_csv(study: Study, costs: dict[str, list[tuple[Run, Costs]]]) -> str:
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
        return _number(value)
    if name == "flops":
        return f"{value:.3g}"
    if name == "seconds":
        return f"{value:,.1f}"
    return f"{value:,.0f}"


def _number(value: float) -> str:
    return f"{value:,.4f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.2e}"


def _signed(value: float) -> str:
    return ("+" if value > 0 else "−" if value < 0 else "") + _number(abs(value))


def _p(value: float | None) -> str:
    assert value is not None
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
