"""The pictures of a report, told apart without colour too: by dashes and markers."""

import io
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from gpt4o_lit.experiments.document import Figure
from gpt4o_lit.experiments.results import Study
from gpt4o_lit.experiments.run_costs import (
    PARETO,
    Costs,
    RunCosts,
    is_rounded_after_validation,
    taken_by,
)
from gpt4o_lit.experiments.run_files import Run
from gpt4o_lit.experiments.statistics import Comparison

# Okabe and Ito (2008), without its yellow, which is hard to see on white.
COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES = ("-", (0, (5, 2)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (8, 3)), (0, (3, 1)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#B0B0B0"
MOST_POINTS = 200
AXES = {
    "steps": "optimizer steps",
    "tokens": "tokens trained on",
    "seconds": "seconds of training",
    "flops": "FLOPs of training",
}
FORMAT: dict[str, dict[str, Any]] = {
    "svg": {"metadata": {"Date": None, "Creator": None, "Format": None, "Type": None}},
    "png": {"dpi": 160},
}


@dataclass(frozen=True)
class Look:
    """How a variant is drawn everywhere; those beyond the colours share a grey."""

    color: str
    dash: Any
    marker: str
    named: bool = True


def draw(
    study: Study,
    comparisons: dict[str, Comparison],
    costs: RunCosts,
) -> dict[str, list[Figure]]:
    """All pictures that the runs have figures for: of `values`, `curves` and `pareto`."""
    drawn = looks(study)
    with matplotlib.rc_context({"text.parse_math": False}):  # a name may have dollars in it
        made = {
            "values": [differences(study, comparisons, drawn), seeds(study, drawn)],
            "curves": [curves(study, drawn, study.metric, axis) for axis in AXES],
            "pareto": [pareto(study, drawn, costs, field) for field in PARETO],
        }
        if study.metric != "train/loss":
            made["curves"].append(curves(study, drawn, "train/loss", "steps"))
    return {part: [each for each in group if each is not None] for part, group in made.items()}


def looks(study: Study) -> dict[str, Look]:
    """The base is black; where there are more than six others, the six best are coloured."""
    others = [name for name in study.variants if name != study.base and study.values(name)]
    if len(others) >= len(COLORS):
        sign = 1 if study.mode == "min" else -1
        others.sort(key=lambda name: sign * float(np.mean([*study.values(name).values()])))
    seen = [study.base, *others][: len(COLORS)]
    drawn = {name: Look(*look) for name, look in zip(seen, _distinct(), strict=False)}
    rest = Look(GREY, "-", ".", named=False)
    return {name: drawn.get(name, rest) for name in [*seen, *others[len(COLORS) - 1 :]]}


def _distinct() -> Iterator[tuple[str, Any, str]]:
    yield from zip(COLORS, DASHES, MARKERS, strict=True)


def differences(
    study: Study, comparisons: dict[str, Comparison], drawn: dict[str, Look]
) -> Figure | None:
    """Each variant's difference to the base, and its interval where there is one."""
    shown = [name for name in drawn if name in comparisons and comparisons[name].count]
    if not shown:
        return None
    figure, axes = _canvas(height=1.3 + 0.32 * len(shown))
    for place, name in enumerate(shown):
        told, look = comparisons[name], drawn[name]
        if told.low is not None and told.high is not None:
            axes.plot([told.low, told.high], [place, place], color=look.color, linewidth=2)
        axes.plot(told.difference, place, look.marker, color=look.color, markersize=7)
    axes.axvline(0, color="#000000", linewidth=1)
    axes.set_yticks(range(len(shown)), list(map(_in_lines, shown)))
    axes.set_ylim(len(shown) - 0.5, -0.5)
    better = "left" if study.mode == "min" else "right"
    axes.set_xlabel(f"{study.metric} minus that of {study.base}")
    return _figure(
        figure,
        "differences",
        f"Difference to {study.base} in {study.metric}, the mean over common seeds; {better} of "
        "the line is better. Bars: 95% intervals, each for itself. A point without a bar has one "
        "seed, or seeds that all differ alike.",
    )


def seeds(study: Study, drawn: dict[str, Look]) -> Figure:
    """Every run's value, with the mean of its variant."""
    figure, axes = _canvas(height=1.3 + 0.32 * len(drawn))
    shown = [name for name in drawn if study.values(name)]
    for place, name in enumerate(shown):
        values, look = list(study.values(name).values()), drawn[name]
        axes.plot(values, [place] * len(values), look.marker, color=look.color, fillstyle="none")
        axes.plot([np.mean(values)] * 2, [place - 0.3, place + 0.3], color=look.color, linewidth=2)
    axes.set_yticks(range(len(shown)), list(map(_in_lines, shown)))
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel(study.metric)
    return _figure(
        figure, "seeds", f"{study.metric} of each run; a bar is the mean over a variant's seeds."
    )


def curves(study: Study, drawn: dict[str, Look], metric: str, axis: str) -> Figure | None:
    """A metric as training goes on, by one of AXES: the mean over seeds, and their range."""
    lines = {name: _line(study.finished(name), metric, axis) for name in drawn}
    if not any(lines.values()):
        return None
    figure, axes = _canvas()
    for name, line in reversed(lines.items()):  # the base is drawn last, on top
        if line is None:
            continue
        x, y, low, high = line
        look = drawn[name]
        axes.plot(
            x, y, color=look.color, linestyle=look.dash, label=name if look.named else None,
            marker=look.marker if look.named else None, markevery=max(1, len(x) // 8), markersize=4,
            linewidth=1.5 if look.named else 0.8, zorder=3 if look.named else 2,
        )  # fmt: skip
        if look.named and (high > low).any():
            axes.fill_between(x, low, high, color=look.color, alpha=0.15, linewidth=0)
    axes.set(xlabel=AXES[axis], ylabel=metric)
    if axis != "seconds":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    _legend(figure, axes, drawn)
    missing = [name for name, line in lines.items() if line is None]
    lacks = f" Not logged by {', '.join(missing)}." if missing else ""
    caption = f"{metric} by {AXES[axis]}: the mean over seeds, and the range of them as a band."
    return _figure(figure, f"{metric.replace('/', '_')}_by_{axis}", caption + lacks)


def pareto(study: Study, drawn: dict[str, Look], costs: RunCosts, field: str) -> Figure | None:
    """Quality against a field of Costs: means over seeds, their range, and who no other beats."""
    label, less = PARETO[field]
    measured = {name: _cost_and_value(study, costs.get(name, []), field) for name in drawn}
    if not any(measured.values()):
        return None
    points: dict[str, tuple[float, float]] = {}
    figure, axes = _canvas()
    for name, look in reversed(drawn.items()):
        if not measured[name]:
            continue
        x, y = np.array(measured[name]).T
        points[name] = (float(x.mean()), float(y.mean()))
        reach = [[[c - v.min()], [v.max() - c]] for c, v in ((x.mean(), x), (y.mean(), y))]
        axes.errorbar(
            x.mean(), y.mean(), xerr=reach[0], yerr=reach[1], color=look.color, marker=look.marker,
            markersize=7 if look.named else 4, linestyle="none", linewidth=1,
            label=name if look.named else None, zorder=3 if look.named else 2,
        )  # fmt: skip
    best = frontier(list(points.values()), less, study.mode == "min")
    axes.plot(*zip(*best, strict=True), drawstyle="steps-post" if less else "steps-pre",
              color="#56B4E9", linewidth=1, zorder=1)  # fmt: skip
    axes.set(xlabel=label, ylabel=study.metric)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(0.12)
    _legend(figure, axes, drawn)
    winners = [name for name in reversed(points) if points[name] in best]
    missing = [name for name in drawn if name not in points]
    lacks = f" Not measured: {', '.join(missing)}." if missing else ""
    return _figure(
        figure,
        f"pareto_{field}",
        f"{study.metric} against {label}; bars are the range over seeds. No other variant is at "
        f"least as good in both: {', '.join(winners)} (means; chance is not considered).{lacks}",
    )


def _cost_and_value(
    study: Study, runs: Sequence[tuple[Run, Costs]], field: str
) -> list[tuple[float, float]]:
    """Of the runs that know the cost, and whose value is that of the weights it is of."""
    return [
        (getattr(cost, field), study.value(run))
        for run, cost in runs
        if getattr(cost, field) is not None
        and not (field != "training_speed" and is_rounded_after_validation(run))
    ]


def frontier(
    points: Sequence[tuple[float, float]], less_x: bool, less_y: bool
) -> list[tuple[float, float]]:
    """The points that no other matches in both coordinates and beats in one, from left to right."""
    signs = (1 if less_x else -1, 1 if less_y else -1)
    signed = [tuple(sign * v for sign, v in zip(signs, p, strict=True)) for p in points]

    def is_beaten(mine: tuple[float, ...]) -> bool:
        return any(
            other != mine and all(o <= m for o, m in zip(other, mine, strict=True))
            for other in signed
        )

    kept = {point for point, each in zip(points, signed, strict=True) if not is_beaten(each)}
    return sorted(kept)


def _line(runs: Sequence[Run], metric: str, axis: str) -> Any:
    """x, mean, smallest and largest at the steps that all runs of a variant have."""
    found = [dict(run.metrics.get(metric, ())) for run in runs]
    steps = sorted(set.intersection(*(set(each) for each in found))) if found else []
    if len(steps) > MOST_POINTS:
        steps = [steps[round(k)] for k in np.linspace(0, len(steps) - 1, MOST_POINTS)]
    taken = [steps] if axis == "steps" else [taken_by(run, axis, steps) for run in runs]
    if not steps or any(each is None for each in taken):
        return None
    y = np.array([[each[step] for step in steps] for each in found])
    return np.mean(np.array(taken, dtype=float), axis=0), y.mean(0), y.min(0), y.max(0)


def _canvas(height: float = 3.6) -> tuple[Any, Any]:
    """Small, so that its letters can be read where a phone makes it smaller still."""
    figure, axes = plt.subplots(figsize=(4.8, height), layout="constrained")
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _in_lines(name: str) -> str:
    """A variant's name as wide as a plot has room for, cut behind commas where there are any."""
    return textwrap.fill(name.replace(",", ", "), 24).replace(", ", ",")


def _legend(figure: Any, axes: Any, drawn: dict[str, Look]) -> None:
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda place: [*drawn].index(labels[place]))
    grey = sum(not look.named for look in drawn.values())
    handles, labels = [handles[k] for k in order], [labels[k] for k in order]
    if grey:
        handles.append(Line2D([], [], color=GREY, marker="."))
        labels.append(f"{grey} others")
    columns = 1 if any(len(label) > 24 for label in labels) else 2
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9,
                  frameon=False, handlelength=3)  # fmt: skip


def _figure(figure: Any, name: str, caption: str) -> Figure:
    made = {}
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # it stands; each file would work it out twice
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        for kind, settings in FORMAT.items():
            file = io.BytesIO()
            figure.savefig(file, format=kind, **settings)
            made[kind] = file.getvalue()
    plt.close(figure)
    return Figure(name, caption, made["svg"], made["png"])
