"""Dashboards of W&B: what it would be sent, without an account."""

import json
from pathlib import Path
from typing import Any

import pytest

from gpt4o_lit.__main__ import main
from tests.experiments.conftest import write_run


def sent(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    assert main(["dashboard", *flags]) == 0
    return dict(json.loads(capsys.readouterr().out))


def panels(view: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    sections = view["spec"]["section"]["panelBankConfig"]["sections"]
    return [p["config"] for each in sections for p in each["panels"] if p["viewType"] == kind]


def test_an_ablation_has_a_line_for_each_variant_and_a_band_of_seeds(
    rates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    view = sent(capsys, str(rates), "--entity", "me", "--project", "ours")
    assert (view["entity"], view["project"]) == ("me", "ours")
    (runs,) = view["spec"]["section"]["runSets"]
    assert runs["grouping"] == [{"section": "run", "name": "jobType"}]
    (group,) = runs["filters"]["filters"]
    assert (group["key"]["name"], group["op"], group["value"]) == ("group", "=", "rates")
    curves = panels(view, "Run History Line Plot")
    axes = {each["xAxis"] for each in curves if each["metrics"] == ["val/loss"]}
    assert axes == {"trainer/global_step", "perf/tokens", "perf/seconds", "perf/flops"}
    assert {(each["groupAgg"], each["groupArea"]) for each in curves} == {("mean", "stddev")}
    (bars,) = panels(view, "Bar Chart")
    assert bars["metrics"] == ["val/loss"]
    assert all(each["yAxis"] == "summary:val/loss" for each in panels(view, "Scatter Plot"))


def test_compression_shows_quality_by_bytes_and_speed_and_what_came_of_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parent, child = (write_run(tmp_path / name) for name in ("parent", "child"))
    for run in (parent, child):
        (run / "wandb_id").write_text(f"id_{run.name}")
    (child / "compressed").mkdir()
    view = sent(capsys, str(parent), str(child), "--metric", "val/accuracy")
    plots = panels(view, "Scatter Plot")
    assert {(each["xAxis"], each["yAxis"]) for each in plots} == {
        ("summary:deployed/bytes", "summary:val/accuracy"),
        ("summary:deployed/writing_speed", "summary:val/accuracy"),
    }
    assert all(each["showMaxYAxisLine"] for each in plots)  # more of it is better
    lineage = [json.dumps(each) for each in panels(view, "Weave")]
    for name in ("model-id_parent", "model-id_child", "compressed-id_child"):
        assert sum(f'"{name}"' in each and '"lineage"' in each for each in lineage) == 1, name
    (runs,) = view["spec"]["section"]["runSets"]
    assert runs["filters"]["filters"][0]["value"] == ["id_parent", "id_child"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["run"], "was not shown in W&B (it has no wandb_id)"),
        (["rates", "run"], "is an ablation; give it alone"),
        (["rates", "--save"], "--save needs to know whose project it is"),
        (["rates", "--metric", "val/what"], "add --mode min or --mode max"),
        (["nothing"], "nothing is no run directory"),
    ],
)
def test_a_mistake_is_one_line(
    flags: list[str], message: str, rates: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(rates.parent)
    monkeypatch.delenv("WANDB_ENTITY", raising=False)
    write_run(rates.parent / "run")
    assert main(["dashboard", *flags]) == 2
    told = capsys.readouterr().err.strip()
    assert message in told
    assert "\n" not in told
