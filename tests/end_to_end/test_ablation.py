"""Ablations as a researcher runs them: from a grid file to a table, through failures and kills."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpt4o_lit.__main__ import main
from gpt4o_lit.experiments.record import Record
from tests.end_to_end.ablation_survival import ablate, campaign, finished, write_grid
from tests.end_to_end.survival import LONGEST, ended
from tests.end_to_end.test_fit import assert_equal, fit, weights

QUIET = {"model_card.measure": False, "samples.enabled": False}
PLACEMENT = "model.init_args.transformer.decoder.norm.placement"


def write(home: Path, **values: Any) -> str:
    path = home / "mine.yaml"
    given = {"base": "tiny.yaml", "flags": QUIET} | values
    path.write_text(yaml.safe_dump(given, sort_keys=False), encoding="utf-8")
    return str(path)


def run(grid: str, *flags: str) -> int:
    """Its exit code; what it printed is in run.log."""
    Path("run.log").unlink(missing_ok=True)
    code = ended(ablate(Path(grid), *flags), time.monotonic() + 300)
    assert code is not None
    return code


def test_a_variant_that_fails_is_told_and_stops_nothing_else(
    home: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    late = {"class_path": "MagnitudePruning", "init_args": {"schedule": {"end": 99}}}
    variants = {"late": {"callbacks": {"add": [late]}}, "post": {PLACEMENT: "post"}}
    grid = write(home, variants=variants)
    assert run(grid, "--parallel", "2") == 1
    told = Path("run.log").read_text(encoding="utf-8")
    assert "late seed 0: failed: " in told
    assert "1 did not end" in told
    directory = Path("runs/ablations/mine")
    plan = json.loads((directory / "ablation.json").read_text(encoding="utf-8"))
    assert {key: plan[key] for key in ("name", "metric", "mode", "base")} == {
        "name": "mine", "metric": "val/loss", "mode": "min", "base": "base",
    }  # fmt: skip
    assert plan["runs"][2] == {
        "variant": "post",
        "seed": 0,
        "directory": "post/seed_0",
        "changes": [f"{PLACEMENT}=post"],
    }
    post = directory / "post" / "seed_0"
    for name in ("config.yaml", "metrics.csv", "manifest.json", "MODEL_CARD.md", "run.log"):
        assert (post / name).is_file(), name
    alone = fit(config, "alone", f"--{PLACEMENT}=post", *(f"--{k}={v}" for k, v in QUIET.items()))
    assert_equal(weights(alone), weights(post), atol=0)

    before = finished(str(directory))
    assert len(before) == 2
    assert run(grid) == 1  # the one that failed fails again
    assert finished(str(directory)) == before
    assert "2 of 3 runs have ended already" in Path("run.log").read_text(encoding="utf-8")

    capsys.readouterr()
    assert main(["runs", str(directory), "--json", "--sort", "name"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [each["status"] for each in listed] == ["finished", "failed", "finished"]
    assert "end" in listed[1]["error"]
    assert listed[0]["step"] == listed[0]["best_step"] == 6
    assert main(["compare", str(directory / "base/seed_0"), str(post)]) == 0
    shown = capsys.readouterr().out
    assert PLACEMENT in shown
    assert "model.init_args.transformer.decoder.dim" not in shown
    assert "tokens/s" in shown

    write(home, variants=variants, flags=QUIET | {"trainer.max_steps": 9})
    assert main(["ablate", grid]) == 2
    assert "has runs with trainer.max_steps 6, which is 9 now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metric": "val/los"}, "variant base logs no metric 'val/los'; did you mean 'val/loss'?"),
        ({"flags": {"data.init_args.corpus.sources": ["no.txt"]}}, "base does not train one step"),
    ],
)
def test_a_metric_that_nobody_logs_is_named_before_any_run(
    values: dict[str, Any], message: str, home: Path, config: Path
) -> None:
    assert run(write(home, variants={"post": {PLACEMENT: "post"}}, **values)) == 2
    told = Path("run.log").read_text(encoding="utf-8").strip()
    assert message in told
    assert "\n" not in told
    assert not list(Path("runs").glob("ablations/mine/*/seed_*"))
    assert not list(Path("runs").glob("ablations/mine/.probe*"))


def test_an_ablation_that_is_told_to_stop_saves_and_goes_on(home: Path, config: Path) -> None:
    grid = write_grid(home, variants=2, seeds=1, **{"trainer.max_steps": 400})
    process = ablate(grid, "--dir", "killed")
    log = Path("killed/base/seed_0/metrics.csv")
    limit = time.monotonic() + LONGEST
    while not log.is_file():
        assert ended(process, time.monotonic() + 0.01) is None
        assert time.monotonic() < limit
    subprocess.run(["kill", "-TERM", str(process)], check=True)
    assert ended(process, limit) == 130
    stopped = Record(Path("killed/base/seed_0"))
    assert stopped.status == "stopped"
    assert 0 < stopped.step < 400
    assert (stopped.path / "checkpoints" / "last.ckpt").exists()
    assert "stopped; go on: gpt4o-lit ablate" in Path("run.log").read_text(encoding="utf-8")


@pytest.mark.slow
def test_an_ablation_that_is_killed_loses_no_run_that_had_ended(home: Path, config: Path) -> None:
    counts = campaign(home, write_grid(home, variants=2, seeds=1), kills=2, seed=0)
    assert counts["kills"] == 2


@pytest.mark.slow
def test_an_ablation_that_is_killed_20_times_equals_one_that_never_was(
    home: Path, config: Path
) -> None:
    counts = campaign(home, write_grid(home, variants=6, seeds=3), kills=20, seed=1)
    assert counts["kept"] > 5


@pytest.mark.slow
def test_an_ablation_takes_no_longer_than_its_runs(home: Path, config: Path) -> None:
    """Each run alone is a process that imports everything; here one process has."""

    def seconds(*arguments: str) -> float:
        begin = time.monotonic()
        command = [sys.executable, "-m", "gpt4o_lit", *arguments]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        return time.monotonic() - begin

    grid = write_grid(home, variants=3, seeds=2)
    seconds("fit", "--config", str(config), "--run_dir", "first")  # builds the corpus
    together = seconds("ablate", str(grid), "--dir", "together", "--threads", "1")
    alone = sum(
        seconds("fit", "--config", str(path.parent / "variant.yaml"), "--run_dir",
                f"alone/{path.parent.name}/{path.name}")
        for path in sorted(Path("together").glob("*/seed_*"))
    )  # fmt: skip
    print(f"{together:.1f} s, and {alone:.1f} s one by one: {together / alone:.2f}")
    assert together < 1.1 * alone
