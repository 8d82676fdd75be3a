"""`runs` and `compare` read directories, wherever they are given from."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gpt4o_lit.__main__ import main
from tests.experiments.conftest import write_run


def test_a_metric_that_no_run_has_logged_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "a")
    assert main(["runs", str(tmp_path), "--metric", "val/los"]) == 2
    assert "no run has logged 'val/los'; did you mean 'val/loss'?" in capsys.readouterr().err
    assert main(["runs", str(tmp_path), "--metric", "val/accuracy", "--mode", "max", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["best"] == pytest.approx(1 / 3)


def test_runs_are_compared_by_paths_of_both_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a", lr=0.01)
    write_run(tmp_path / "b", lr=0.02)
    assert main(["compare", "a", str(tmp_path / "b")]) == 0
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()
             if line.strip()}  # fmt: skip
    assert lines["a"] == ["b"]
    assert lines["model.init_args.optimizer.init_args.lr"] == ["0.01", "0.02"]


@pytest.mark.parametrize("verb", ["runs", "compare", "report", "dashboard"])
def test_reading_runs_does_not_wait_for_pytorch(verb: str) -> None:
    code = (
        f"import sys, gpt4o_lit.commands.{verb} as verb; "
        "print([name for name in ('torch', 'lightning') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
