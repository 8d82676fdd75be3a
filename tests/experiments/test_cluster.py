"""Runs as jobs: of this machine, and of a SLURM whose commands are stood in for by scripts here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt4o_lit.__main__ import main
from gpt4o_lit.experiments.cluster import read_options
from gpt4o_lit.experiments.record import records_below
from tests.end_to_end.ablation_survival import write_grid
from tests.end_to_end.conftest import write_config

# What submitit reads of SLURM's commands; jobs run at once, as processes of this machine.
SBATCH = """#!/bin/bash
number=$(( $(ls jobs_of_slurm 2>/dev/null | wc -l) + 1 )); mkdir -p jobs_of_slurm
cp "${@: -1}" jobs_of_slurm/$number
SLURM_JOB_ID=$number SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 \\
SLURM_LOCALID=0 SLURM_JOB_NAME=submitit SLURM_JOB_NODELIST=here \\
    setsid bash jobs_of_slurm/$number > jobs_of_slurm/$number.log 2>&1 &
echo Submitted batch job $number
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do
    if [[ $1 == --output || $1 == --error ]]; then shift; fi
    shift
done
exec "$@"
"""
SACCT = """#!/bin/bash
echo "JobID|State|NodeList"
for job in jobs_of_slurm/*[0-9]; do
    state=RUNNING
    if ! pgrep -f "bash $job\\$" > /dev/null; then state=COMPLETED; fi
    echo "$(basename $job)|$state|here"
done
"""


def test_options_are_read_as_yaml() -> None:
    assert read_options(["slurm_partition=gpu", "timeout_min=60"]) == {
        "slurm_partition": "gpu",
        "timeout_min": 60,
    }
    with pytest.raises(ValueError, match="write KEY=VALUE"):
        read_options(["timeout_min"])


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    return write_grid(tmp_path, variants=2, seeds=1)


def ablate(grid: Path, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gpt4o_lit", "ablate", str(grid), "--dir", "abl", *flags]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=500
    )


def test_an_option_that_the_executor_does_not_know_is_one_line(
    grid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--cluster", "local", "--cluster_options", "slurm_partitoin=x"]
    assert main(["ablate", str(grid), "--dir", "abl", *flags]) == 2
    error = capsys.readouterr().err.strip()
    assert "slurm_partitoin" in error
    assert "\n" not in error


@pytest.mark.slow
def test_local_jobs_leave_ordinary_runs(grid: Path) -> None:
    done = ablate(grid, "--cluster", "local", "--parallel", "2")
    assert done.returncode == 0, done.stderr
    assert [record.status for record in records_below(Path("abl"))] == ["finished"] * 2


@pytest.mark.slow
def test_jobs_of_slurm_leave_ordinary_runs(grid: Path, tmp_path: Path) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT}.items():
        (commands / name).write_text(text, encoding="utf-8")
        (commands / name).chmod(0o755)
    path = f"{commands}:{os.environ['PATH']}"
    done = ablate(grid, "--cluster", "slurm", "--cluster_options", "timeout_min=20", PATH=path)
    assert done.returncode == 0, done.stderr
    assert [record.status for record in records_below(Path("abl"))] == ["finished"] * 2
    assert len(list(Path("abl/jobs").glob("*.job"))) == 2
