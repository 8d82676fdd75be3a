"""A ledger as a table and as a picture."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib
import torch

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator

from gpt4o_lit.evaluation.ledger import Entry, Plan

MB = 1e6


def write(directory: Path, entries: Sequence[Entry], plan: Plan, others: dict[str, Any]) -> None:
    """ledger.json with `others`, ledger.txt and, where quality is known, pareto.png."""
    told = others | {
        "date": date.today().isoformat(),
        "threads": torch.get_num_threads(),
        "plan": asdict(plan),
        "entries": [asdict(entry) for entry in entries],
    }
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(told, indent=1) + "\n"
    (directory / "ledger.json").write_text(text, encoding="utf-8")
    (directory / "ledger.txt").write_text(table(entries) + "\n", encoding="utf-8")
    draw(entries, directory / "pareto.png")


def figures(entry: Entry) -> dict[str, float | None]:
    """What there is to compare, by its label, in order."""
    found: dict[str, float | None] = {
        "parameters (M)": entry.parameters / 1e6,
        "of these not 0 (M)": entry.nonzeros / 1e6,
        "bytes on disk (MB)": entry.bytes_on_disk / MB,
        "peak memory (MB)": None
        if entry.peak_memory_bytes is None
        else entry.peak_memory_bytes / MB,
        "time to first token (ms)": entry.first_token_ms,
    }
    for name, label in (("prefill", "read"), ("decode", "write")):
        for suffix, how in (("", ""), ("_compiled", ", compiled")):
            for batch_size, speed in getattr(entry, name + suffix).items():
                found[f"{label} tokens/s, batch {batch_size}{how}"] = speed
    return found | {
        "price per million tokens": entry.price_per_million,
        "bits per byte": entry.bits_per_byte,
    }


def table(entries: Sequence[Entry]) -> str:
    """A column per run; in brackets how many times the first's, or for quality what is added."""
    columns = [figures(entry) for entry in entries]
    labels = list(dict.fromkeys(label for column in columns for label in column))
    labels = [label for label in labels if any(c.get(label) is not None for c in columns)]
    rows = [["", *_names(entries)]]
    for label in labels:
        parent = columns[0].get(label)
        cells = [_cell(label, column.get(label), parent) for column in columns[1:]]
        rows.append([label, _number(parent), *cells])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def draw(entries: Sequence[Entry], path: Path) -> None:
    """Quality against bytes and against speed, and which runs no other beats; if it is known."""
    known = [entry for entry in entries if entry.bits_per_byte is not None]
    if not known:
        return
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained", sharey=True)
    names = dict(zip((entry.run for entry in entries), _names(entries), strict=True))
    for axis, label, values, more in (
        (axes[0], "bytes on disk (MB)", [e.bytes_on_disk / MB for e in known], False),
        (axes[1], "tokens written per second, batch 1", [_fastest(e) for e in known], True),
    ):
        points = [
            (value, entry.bits_per_byte, names[entry.run])
            for value, entry in zip(values, known, strict=True)
            if value is not None and entry.bits_per_byte is not None
        ]
        for x, y, name in points:
            axis.plot(x, y, "o", color="tab:blue")
            axis.annotate(name, (x, y), xytext=(6, 5), textcoords="offset points", fontsize=9)
        front = frontier([(x, y) for x, y, _ in points], more_is_better=more)
        axis.plot(*zip(*front, strict=True), drawstyle="steps-post", color="tab:orange", alpha=0.6)
        axis.set(xlabel=label, xscale="log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(LogLocator(subs=(2, 3, 5, 7)))  # of all, labels would overlap
        axis.xaxis.set_minor_formatter("{x:g}")
        axis.grid(alpha=0.3, which="both")
        axis.margins(x=0.3, y=0.15)
    axes[0].set_ylabel("bits per byte (less is better)")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def frontier(
    points: Sequence[tuple[float, float]], *, more_is_better: bool
) -> list[tuple[float, float]]:
    """The points that none beats in both: less of the second, and more, or less, of the first."""
    sign = -1 if more_is_better else 1
    kept: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (sign * point[0], point[1])):
        if not kept or y < kept[-1][1]:
            kept.append((x, y))
    return kept


def _fastest(entry: Entry) -> float | None:
    speeds = [entry.decode.get(1), entry.decode_compiled.get(1)]
    return max((speed for speed in speeds if speed is not None), default=None)


def _names(entries: Sequence[Entry]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    parts = [Path(entry.run).resolve().parts for entry in entries]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [entry.run for entry in entries]


def _cell(label: str, value: float | None, parent: float | None) -> str:
    if value is None or parent is None:
        return _number(value)
    if label == "bits per byte":
        return f"{_number(value)} ({value / parent - 1:+.2%})"
    return f"{_number(value)} ({value / parent:.2f}x)"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4f}" if value < 10 else f"{value:,.1f}"
