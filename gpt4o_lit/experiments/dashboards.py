"""Dashboards of Weights & Biases as code: one for an ablation, one for what was compressed."""

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4o_lit.run_directory import PACKED, WANDB_ID

AXES = {
    "trainer/global_step": "steps",
    "perf/tokens": "tokens",
    "perf/seconds": "seconds of training",
    "perf/flops": "FLOPs",
}
WIDTH, HEIGHT = 8, 6
"""Of a panel, in cells of a grid that is 24 wide."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where W&B keeps a dashboard."""

    entity: str
    project: str


def ablation_dashboard(name: str, metric: str, mode: str, place: Place) -> Any:
    """A workspace with a line for each variant: the mean over seeds, and their deviation as a band.

    Args:
        name: That of the ablation's directory, which is the group of its runs.
        metric: By what variants are compared.
        mode: Whether less (min) or more (max) of it is better.
        place: Where W&B keeps it.

    Raises:
        ValueError: wandb-workspaces is not there.
    """
    spaces, panels = _modules()
    lowest = mode == "min"
    seeds = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    sections = {
        f"{metric}: mean over seeds, and their deviation": [
            panels.BarPlot(title=f"{metric} at the end", metrics=[metric], **seeds),
            *(
                panels.LinePlot(title=f"{metric} by {words}", x=axis, y=[metric], **seeds)
                for axis, words in AXES.items()
            ),
            panels.LinePlot(title="train/loss", x="trainer/global_step", y=["train/loss"], **seeds),
        ],
        "Quality against cost": [
            _scatter(panels, metric, "perf/seconds", lowest),
            _scatter(panels, metric, "perf/flops", lowest),
            _scatter(panels, metric, "deployed/bytes", lowest),
        ],
        "What differs, and what they write": [
            panels.RunComparer(diff_only="split"),
            panels.WeavePanelSummaryTable(table_name="samples"),
        ],
    }
    runs = spaces.RunsetSettings(
        filters=[spaces.Metric("Group") == name],
        groupby=[spaces.Metric("JobType")],  # the variant
        order=[spaces.Ordering(spaces.Summary(metric), ascending=lowest)],
        pinned_columns=[f"summary:{metric}", "summary:perf/seconds"],
    )
    return _workspace(spaces, place, f"Ablation {name}", sections, runs)


def compression_dashboard(runs: Sequence[Path], metric: str, mode: str, place: Place) -> Any:
    """A workspace of a parent and what came of it: quality, bytes, speed, sparsity and lineage.

    Args:
        runs: Directories of runs that W&B was told of, the parent first.
        metric: By what quality is judged.
        mode: Whether less (min) or more (max) of it is better.
        place: Where W&B keeps it.

    Raises:
        ValueError: W&B was not told of a run, or wandb-workspaces is not there.
    """
    spaces, panels = _modules()
    ids = {run: wandb_id(run) for run in runs}
    lowest = mode == "min"
    artifacts = [f"model-{ids[run]}" for run in runs]
    artifacts += [f"compressed-{ids[run]}" for run in runs if (run / PACKED).is_dir()]
    sections = {
        "Quality against bytes and speed": [
            _scatter(panels, metric, "deployed/bytes", lowest),
            _scatter(panels, metric, "deployed/writing_speed", lowest),
            panels.BarPlot(title="bytes", metrics=["deployed/bytes"]),
        ],
        "As it was compressed": [
            panels.LinePlot(title=metric, x="trainer/global_step", y=[metric]),
            panels.LinePlot(title="sparsity", x="trainer/global_step", y=["pruning/sparsity"]),
            panels.MediaBrowser(title="weights left", media_keys=["sparsity/density"]),
        ],
        "Lineage: what came of what": [
            panels.WeavePanelArtifact(artifact=name, tab="lineage") for name in artifacts
        ],
        "What differs": [panels.RunComparer(diff_only="split")],
    }
    shown = spaces.RunsetSettings(
        filters=[spaces.Metric("ID").isin(list(ids.values()))],
        order=[spaces.Ordering(spaces.Summary("deployed/bytes"), ascending=True)],
        pinned_columns=[f"summary:{metric}", "summary:deployed/bytes",
                        "summary:deployed/writing_speed"],
    )  # fmt: skip
    return _workspace(spaces, place, f"Compression of {runs[0].name}", sections, shown)


def wandb_id(run: Path) -> str:
    """What W&B calls a run.

    Raises:
        ValueError: it was never told of it.
    """
    file = run / WANDB_ID
    if not file.is_file():
        raise ValueError(
            f"{run} was not shown in W&B (it has no {WANDB_ID}); add `--config with/wandb` to its "
            "fit"
        )
    return file.read_text(encoding="utf-8").strip()


def as_json(workspace: Any) -> str:
    """What W&B would be sent, to read or to compare."""
    view = workspace._to_model()  # which it has no public name for
    told = json.loads(view.model_dump_json(by_alias=True, exclude_none=True))
    return json.dumps(told, indent=1)


def _scatter(panels: Any, metric: str, cost: str, lowest: bool) -> Any:
    """A point for each run; the running best is drawn where less of the cost is better."""
    best = {"running_ymin": True} if lowest else {"running_ymax": True}
    summary = panels.SummaryMetric
    return panels.ScatterPlot(
        title=f"{metric} by {cost}", x=summary(cost), y=summary(metric), log_x=True, **best
    )


def _workspace(
    spaces: Any, place: Place, name: str, sections: dict[str, list[Any]], runs: Any
) -> Any:
    for each in sections.values():
        for number, panel in enumerate(each):
            layout = {"x": number % 3 * WIDTH, "y": number // 3 * HEIGHT, "w": WIDTH, "h": HEIGHT}
            panel.layout = type(panel.layout)(**layout)
    return spaces.Workspace(
        entity=place.entity,
        project=place.project,
        name=name,
        sections=[
            spaces.Section(name=title, panels=each, is_open=True)
            for title, each in sections.items()
        ],
        settings=spaces.WorkspaceSettings(x_axis="trainer/global_step", max_runs=100),
        runset_settings=runs,
    )


def _modules() -> tuple[Any, Any]:
    try:
        return (
            importlib.import_module("wandb_workspaces.workspaces"),
            importlib.import_module("wandb_workspaces.reports.v2"),
        )
    except ModuleNotFoundError as error:
        raise ValueError(
            "dashboard needs wandb-workspaces: pip install 'gpt4o-lit[wandb-workspaces]'"
        ) from error
