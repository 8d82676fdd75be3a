"""A study as a report: what came out, how sure that is, and what should be known of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

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
from gpt4o_lit.experiments.findings import Finding, findings, in_short
from gpt4o_lit.experiments.report_tables import (
    runs_csv,
    runs_table,
    variants_csv,
    variants_table,
)
from gpt4o_lit.experiments.results import Study
from gpt4o_lit.experiments.run_costs import RunCosts, costs_of, is_rounded_after_validation
from gpt4o_lit.experiments.statistics import LEVEL

MOST_DIFFERENCES = 12


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
    (directory / "variants.csv").write_text(variants_csv(study, found, costs), encoding="utf-8")
    (directory / "runs.csv").write_text(runs_csv(study, costs), encoding="utf-8")
    return "\n".join([*(f"! {each}" for each in cautions(study)), *in_short(study, found)])


def _blocks(
    study: Study,
    found: Mapping[str, Finding],
    costs: RunCosts,
    pictures: Mapping[str, Sequence[Figure]],
    command: str,
) -> list[Block]:
    blocks: list[Block] = [Text(_judged_by(study))]
    warnings = cautions(study)
    if warnings:
        blocks += [Heading("Before you read on"), Points(warnings, warn=True)]
    blocks += [Heading("What came out"), Points(in_short(study, found))]
    blocks += [variants_table(study, found), *pictures["values"]]
    blocks += [Heading("How sure is it?"), Points(_assumptions(study, found))]
    blocks += [Heading("As training went on"), *pictures["curves"]]
    if not any(name.endswith("by_tokens") for name in (each.name for each in pictures["curves"])):
        blocks.append(Text("No run logged perf/tokens: there are no curves by tokens."))
    blocks += [Heading("Quality against bytes and speed"), *pictures["pareto"]]
    blocks.append(Text(_cost_words(study)))
    blocks += _what_differs(study)
    blocks += [Heading("All runs"), runs_table(study, costs), Text(f"Made by: {command}")]
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
