"""What an evaluation found: a table, plain data, and lines in a model's card."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4o_lit.evaluation.perplexity import TextQuality

HEADING = "## How well does it do?"
COLUMNS = "| task | rows | metric | checkpoint | value | on |\n|---|---:|---|---|---:|---|\n"


@dataclass(frozen=True)
class Result:
    """One metric of one task."""

    task: str
    rows: int
    """How many were asked."""
    metric: str
    value: float
    error: float | None = None
    """Standard error, where the harness gives one."""

    @property
    def figure(self) -> str:
        """The value as people read it."""
        return f"{self.value:.4f}" + ("" if self.error is None else f" ± {self.error:.4f}")


def of_harness(found: dict[str, Any]) -> list[Result]:
    """The metrics in what the harness gives, in its order."""
    results = []
    for task, values in found["results"].items():
        rows = found["n-samples"].get(task, {}).get("effective", 0)
        for key, value in values.items():
            metric, _, filtered = key.partition(",")
            if not filtered or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = values.get(f"{metric}_stderr,{filtered}")
            name = metric if filtered == "none" else f"{metric} ({filtered})"
            spread = float(error) if isinstance(error, int | float) else None
            results.append(Result(task, rows, name, float(value), spread))
    return results


def of_texts(name: str, rows: int, quality: TextQuality) -> list[Result]:
    """The metrics of texts."""
    metrics = ("perplexity", "word_perplexity", "bits_per_byte")
    return [Result(name, rows, metric, getattr(quality, metric)) for metric in metrics]


def table(results: Sequence[Result]) -> str:
    """For people: a line per metric."""
    wide = max([4, *(len(result.task) for result in results)])
    lines = [f"{'task':<{wide}} {'rows':>8}  {'metric':<20} {'value':>20}"]
    lines += [f"{r.task:<{wide}} {r.rows:>8,}  {r.metric:<20} {r.figure:>20}" for r in results]
    return "\n".join(lines)


def add_to_card(card: Path, results: Sequence[Result], checkpoint: str, date: str) -> None:
    """Add a line per metric to a model's card; it takes the place of one on the same checkpoint."""
    text = card.read_text(encoding="utf-8") if card.exists() else f"# {card.parent.resolve().name}"
    before, _, after = text.partition(HEADING)
    lines = {_key(line): line for line in after.splitlines() if line.startswith("| ")}
    lines.pop(_key(COLUMNS), None)
    for r in results:
        line = f"| {r.task} | {r.rows:,} | {r.metric} | {checkpoint} | {r.figure} | {date} |"
        lines[_key(line)] = line
    body = "\n".join(lines.values())
    card.write_text(f"{before.rstrip()}\n\n{HEADING}\n\n{COLUMNS}{body}\n", encoding="utf-8")


def _key(line: str) -> str:
    """What a line of the card is about."""
    return "|".join(line.split("|")[:5])
