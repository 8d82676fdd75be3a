"""A report says what the statistics say, and its page needs nothing else."""

import csv
import json
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gpt4o_lit.__main__ import main
from gpt4o_lit.experiments.findings import Finding, findings, in_short
from gpt4o_lit.experiments.report_plots import COLORS, frontier, looks
from gpt4o_lit.experiments.results import read_study
from gpt4o_lit.experiments.statistics import compare, holm
from tests.experiments.conftest import write_ablation, write_run

PLOTS = {
    "differences", "seeds", "val_loss_by_steps", "val_loss_by_tokens", "val_loss_by_seconds",
    "val_loss_by_flops", "train_loss_by_steps", "pareto_bytes", "pareto_training_speed",
}  # fmt: skip


class Page(HTMLParser):
    """The tags of a page that are still open, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def report(folder: Path, *flags: str) -> Path:
    out = folder.parent / "out"
    assert main(["report", str(folder), "--out", str(out), *flags]) == 0
    return out


def variants(out: Path) -> dict[str, dict[str, str]]:
    with (out / "variants.csv").open(encoding="utf-8") as lines:
        return {row["variant"]: row for row in csv.DictReader(lines)}


def test_a_page_loads_nothing_and_has_every_plot(rates: Path) -> None:
    out = report(rates)
    text = (out / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert len(page.loads) == len(PLOTS)
    assert all(each.startswith("data:image/svg+xml;base64,") for each in page.loads)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert not re.search(r"@import|url\(|https?://", text)
    pictures = {path.stem: path.read_bytes() for path in (out / "plots").iterdir()}
    assert pictures.keys() == PLOTS
    assert all(picture.startswith(b"\x89PNG") for picture in pictures.values())
    markdown = (out / "report.md").read_text(encoding="utf-8")
    assert {Path(name).stem for name in re.findall(r"\]\((plots/.*)\)", markdown)} == PLOTS


def test_figures_are_those_of_the_statistics(rates: Path) -> None:
    assert main(["report", str(rates)]) == 0
    (page,) = rates.glob("report/*/report.html")  # where one looks for it
    rows = variants(page.parent)
    study = read_study([str(rates)])
    told = [compare(study.values(name), study.values("base")) for name in study.variants[1:]]
    corrected = holm([each.p for each in told if each.p is not None])
    for name, each, p in zip(study.variants[1:], told, corrected, strict=True):
        row = rows[name]
        assert float(row["difference"]) == each.difference
        assert (float(row["low"]), float(row["high"])) == (each.low, each.high)
        assert (float(row["p"]), float(row["holm_p"])) == (each.p, p)
    assert float(rows["base"]["mean"]) == pytest.approx(2.1)
    assert rows["better"]["verdict"] == "better: evidence at 5%"
    assert rows["unclear"]["verdict"] == (
        "no evidence of a difference, and so few seeds would show only a very large one"
    )


def verdicts(folder: Path, **options: str) -> dict[str, Finding]:
    return findings(read_study([str(folder)], **options))  # type: ignore[arg-type]


def test_more_may_be_better(rates: Path) -> None:
    better = verdicts(rates, metric="val/accuracy")["better"]
    assert better.verdict.startswith("better: evidence")
    assert better.comparison.difference is not None
    assert better.comparison.difference > 0


def test_few_seeds_are_said_to_be_few(tmp_path: Path) -> None:
    values = {
        "base": {0: 2.0, 1: 2.2},
        "one": {0: 1.0},
        "two": {0: 1.9, 1: 2.15},
        "same": {0: 1.5, 1: 1.7},
        "elsewhere": {5: 1.0},
    }
    found = verdicts(write_ablation(tmp_path / "a", values))
    assert {name: each.verdict for name, each in found.items()} == {
        "one": "better with the one seed: no interval and no test",
        "two": "no evidence of a difference, and so few seeds would show only a very large one",
        "same": "better by the same at every seed: seeds show no spread to judge by",
        "elsewhere": "not compared: no seed in common with base",
    }


def test_a_p_that_does_not_outlast_the_correction_is_no_evidence(tmp_path: Path) -> None:
    base = {seed: 2 + seed / 10 for seed in range(4)}
    values = {"base": base, "a": {s: v + 0.1 + s / 20 for s, v in base.items()}}
    values |= {f"chance{k}": {s: v + (-1) ** s * k for s, v in base.items()} for k in range(1, 9)}
    found = verdicts(write_ablation(tmp_path / "a", values))["a"]
    assert found.comparison.p is not None
    assert found.corrected is not None
    assert found.comparison.p < 0.05 < found.corrected
    assert found.verdict == "no evidence of a difference, once p is corrected"


def test_of_many_variants_those_with_evidence_are_told_one_by_one(tmp_path: Path) -> None:
    values = {f"v{k}": {s: 2 + s / 10 + (-1) ** s * k / 50 for s in range(4)} for k in range(14)}
    values["worse"] = {s: 3 + s / 10 + s**2 / 1000 for s in range(4)}
    study = read_study([str(write_ablation(tmp_path / "a", values))])
    first, second = in_short(study, findings(study))
    assert first.startswith("worse: +1.0035, 95% interval")
    assert second == "No evidence of a difference for the other 13 of 14 variants."


def test_what_is_left_out_is_in_the_page_and_in_no_figure(rates: Path) -> None:
    manifest = rates / "better" / "seed_2" / "manifest.json"
    told = json.loads(manifest.read_text())
    del told["ended"]
    manifest.write_text(json.dumps(told))
    out = report(rates)
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "Left out of all statistics: better seed 2 (of 9 runs)." in text
    assert "it has not finished: its log ends at step 20" in text
    assert variants(out)["better"]["count"] == "2"


def test_names_are_text_and_no_markup(tmp_path: Path) -> None:
    values = {"base": {0: 2.0}, '<b onload="x">|$x': {0: 1.0}, "$\\bad{$": {0: 3.0}}
    out = report(write_ablation(tmp_path / "a", values))
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "<b " not in text
    assert Page(text).open == []
    rows = (out / "report.md").read_text(encoding="utf-8").splitlines()
    assert any(r"\|" in row for row in rows)


def test_runs_without_costs_have_no_curves_by_them(
    rates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in rates.rglob("metrics.csv"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("perf/tokens,", "old/tokens,"), encoding="utf-8")
    out = report(rates)
    assert not (out / "plots" / "val_loss_by_tokens.png").exists()
    assert "No run logged perf/tokens" in (out / "report.html").read_text(encoding="utf-8")


def test_variants_are_told_apart_without_colour(tmp_path: Path) -> None:
    values = {f"v{k}": {0: 20.0 - k} for k in range(10)}
    drawn = looks(read_study([str(write_ablation(tmp_path / "a", values))]))
    named = {name: look for name, look in drawn.items() if look.named}
    # The base and the best have colours, the others share a grey.
    assert list(named) == ["v0", "v9", "v8", "v7", "v6", "v5", "v4"]
    assert drawn.keys() == values.keys()
    for kind in ("color", "dash", "marker"):
        assert len({str(getattr(look, kind)) for look in named.values()}) == len(COLORS)
    assert len({look for look in drawn.values() if not look.named}) == 1


@pytest.mark.parametrize(
    ("less_x", "less_y", "expected"),
    [
        (True, True, [(1, 3), (2, 1)]),
        (True, False, [(1, 3), (3, 4)]),
        (False, True, [(2, 1), (4, 2)]),
        (False, False, [(3, 4), (4, 2)]),
    ],
)
def test_the_frontier_has_who_is_beaten_by_none(
    less_x: bool, less_y: bool, expected: Sequence[tuple[float, float]]
) -> None:
    points = [(2.0, 1.0), (1.0, 3.0), (4.0, 2.0), (3.0, 4.0), (3.0, 3.0)]
    assert frontier(points, less_x, less_y) == expected


@pytest.mark.slow
def test_a_hundred_runs_take_less_than_ten_seconds_and_five_megabytes(tmp_path: Path) -> None:
    """Of 200 logged rows each; seconds of the processor, for others may work beside it."""
    import resource
    import subprocess
    import sys

    folder = tmp_path / "many"
    values = {f"v{k}": {seed: 2 + k / 100 + seed / 300 for seed in range(5)} for k in range(20)}
    write_ablation(folder, values)
    long = write_run(tmp_path / "long", [3 - k / 1000 for k in range(100)])
    for path in folder.rglob("metrics.csv"):
        shutil.copy(long / "metrics.csv", path)
        manifest = path.parent / "manifest.json"
        told = json.loads(manifest.read_text()) | {"steps": 1000}
        manifest.write_text(json.dumps(told))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "gpt4o_lit", "report", str(folder), "--out"]
    subprocess.run([*command, str(tmp_path / "out")], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10
    size = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert size < 5e6
