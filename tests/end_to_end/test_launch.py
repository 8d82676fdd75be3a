"""Runs that torchrun and srun start, on one node and two, and that lose ranks and nodes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gpt4o_lit import configs
from gpt4o_lit.callbacks.metrics_log import read_metrics
from tests.end_to_end.conftest import load, weights
from tests.end_to_end.dead_ranks import FLAGS, all_ended, campaign, log, start_ranks
from tests.end_to_end.launching import QUICK, ROOT, DiesOnce, Network, lose, said, start, torchrun
from tests.end_to_end.survival import difference, outcome

SHORT = (*FLAGS, "--trainer.max_steps", "14", "--samples.enabled", "false")


def losses(run: Path) -> dict[int, float]:
    """By step."""
    rows = read_metrics(run / "metrics.csv")
    return {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}


def validated(run: Path) -> list[int]:
    """The steps behind which there was a validation."""
    return [row["step"] for row in read_metrics(run / "metrics.csv") if "val/loss" in row]


def test_a_launch_that_loses_a_rank_equals_one_that_never_did(home: Path, config: Path) -> None:
    counts = campaign(home, config, 1, seed=2, flags=SHORT)
    assert counts["kills"] >= 1
    assert counts["runs"] >= 1


@pytest.mark.slow
def test_a_launch_that_loses_20_ranks_equals_one_that_never_did(home: Path, config: Path) -> None:
    counts = campaign(home, config, 20, seed=3)
    assert counts["kills"] >= 20
    assert counts["went on"] >= 1  # some behind a checkpoint


@pytest.mark.parametrize(
    "turns",
    [
        [(4, 2), (99, 1)],
        pytest.param([(4, 2), (8, 1), (99, 2)], marks=pytest.mark.slow),
        pytest.param([(4, 1), (99, 2)], marks=pytest.mark.slow),
    ],
)
def test_a_run_goes_on_with_more_or_fewer_processes_on_the_same_batches(
    turns: list[tuple[int, int]], config: Path
) -> None:
    """Stopped in these steps, within an epoch; a step is of two micro-batches of each process."""
    alike = (*SHORT, "--model.init_args.transformer.decoder.dropout=0")
    fit = ("fit", "--config", str(config), *alike, "--trainer.log_every_n_steps=1")
    whole = start_ranks(0, *fit, "--run_dir=whole", ranks=turns[0][1])
    assert all_ended(whole, 60) == [0] * turns[0][1], log()
    stops = f"--trainer.callbacks+={DiesOnce.__module__}.DiesOnce"
    for turn, (step, ranks) in enumerate(turns):
        settings = [f"--trainer.callbacks.init_args.{at}" for at in (f"step={step}", "sign=15")]
        job = start_ranks(turn, *fit, "--run_dir=run", stops, *settings, ranks=ranks)
        assert all_ended(job, 60) == [0 if step == 99 else 143] * ranks, log()
    assert losses(Path("run")) == pytest.approx(losses(Path("whole")), abs=1e-4)
    assert validated(Path("run")) == validated(Path("whole"))
    for name, weight in weights(Path("whole")).items():
        torch.testing.assert_close(weights(Path("run"))[name], weight, atol=1e-3, rtol=0)


def test_a_rank_with_another_version_is_refused_by_one_line_on_all(config: Path) -> None:
    (Path("old") / "torch-2.8.0.dist-info").mkdir(parents=True)
    metadata = "Metadata-Version: 2.1\nName: torch\nVersion: 2.8.0\n"
    Path("old/torch-2.8.0.dist-info/METADATA").write_text(metadata)
    ranks = [
        start(
            [sys.executable, "-m", "gpt4o_lit", "fit", "--config", str(config)],
            SLURM_JOB_ID=str(10_000 + os.getpid() % 10_000), SLURM_NTASKS="2",
            SLURM_NTASKS_PER_NODE="2", SLURM_NODEID="0", SLURM_PROCID=str(rank),
            SLURM_LOCALID=str(rank), SLURM_NODELIST="localhost",
            PYTHONPATH=f"{'old:' * rank}{ROOT}",
        )
        for rank in range(2)
    ]  # fmt: skip
    lines = [said(rank).strip().splitlines()[-1] for rank in ranks]
    assert lines[0] == lines[1]
    assert "rank 1 has torch 2.8.0 and rank 0 has 2." in lines[0]
    assert [rank.returncode for rank in ranks] == [2, 2]
    assert not Path("runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("shared", ["0", "1"])
def test_torchrun_starts_a_run_again_that_lost_a_rank(shared: str, config: Path) -> None:
    """Whether its agent keeps the store of all restarts or not."""
    fit = ("fit", "--config", str(config), *QUICK, "--data.init_args.batch_size=2")
    dies = ("--trainer.callbacks+=tests.end_to_end.launching.DiesOnce",)
    dies += ("--trainer.callbacks.init_args.step=7",)
    environment = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": shared}
    Path("died_7").touch()
    whole = start(torchrun(*fit, *dies, "--run_dir=run"), **environment)
    output = said(whole)
    assert whole.returncode == 0, output
    expected = outcome(Path("run"))
    shutil.rmtree("run")
    Path("died_7").unlink()
    killed = start(torchrun(*fit, *dies, "--run_dir=run"), **environment)
    output = said(killed)
    assert killed.returncode == 0, output
    assert output.count("torchrun_a: going on in run") == 1
    assert difference(expected, outcome(Path("run"))) is None
    again = start(torchrun(*fit, *dies, "--run_dir=run", restarts=0), **environment)
    assert "is of a launch of the same name that has ended" in said(again)
    assert again.returncode == 1


SRUN = """#!{python}
import os, signal, subprocess, sys
count = int(os.environ["SLURM_NTASKS"])
command = [word for word in sys.argv[1:] if word != "--kill-on-bad-exit=1"]
ranks = [subprocess.Popen(command, env=os.environ | dict(SLURM_PROCID=str(i), SLURM_LOCALID=str(i)))
         for i in range(count)]
def tell(number, frame):
    for rank in ranks:
        rank.send_signal(signal.SIGTERM)
signal.signal(signal.SIGTERM, tell)
open("pids", "w").write(" ".join(str(rank.pid) for rank in ranks))
codes, left = [], set(ranks)
while left:
    pid, status = os.wait()
    rank = next(rank for rank in left if rank.pid == pid)
    left.discard(rank)
    code = os.waitstatus_to_exitcode(status)
    codes.append(code if code >= 0 else 128 - code)
    if code:
        for other in left:
            other.send_signal(signal.SIGTERM)
sys.exit(max(codes))
"""


@pytest.mark.slow
def test_the_script_for_slurm_saves_is_requeued_and_goes_on(config: Path) -> None:
    """With a srun that starts processes here, and a queue that says that the job is running."""
    script = configs.find("launch/slurm.sbatch")
    subprocess.run(["bash", "-n", str(script)], check=True)
    programs = {
        "srun": SRUN.format(python=sys.executable),
        "squeue": "#!/bin/sh\necho ${STATE:-RUNNING}\n",
        "scontrol": "#!/bin/sh\necho $* >> requeued\n",
        "gpt4o-lit": f'#!/bin/sh\nexec {sys.executable} -m gpt4o_lit "$@"\n',
    }
    Path("bin").mkdir()
    for name, text in programs.items():
        (Path("bin") / name).write_text(text)
        (Path("bin") / name).chmod(0o755)
    job = {
        "PATH": f"{Path('bin').absolute()}:{os.environ['PATH']}", "SLURM_JOB_NAME": "test",
        "SLURM_JOB_ID": str(10_000 + os.getpid() % 10_000), "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0",
        "SLURM_NODELIST": "localhost",
    }  # fmt: skip
    fit = ["--config", str(config), *QUICK, "--trainer.max_steps=1500", "--samples.enabled=false"]

    def turn(restarts: int, sign: signal.Signals | None, *more: str, state: str = "RUNNING") -> str:
        count = {"SLURM_RESTART_COUNT": str(restarts), "STATE": state}
        process = start(["bash", str(script), *fit, *more], **job, **count)
        last = Path(f"runs/tiny/slurm_{job['SLURM_JOB_ID']}/checkpoints/last.ckpt")
        begun = last.stat().st_mtime if last.exists() else 0.0
        while sign and not (last.exists() and last.stat().st_mtime > begun):
            assert process.poll() is None, said(process)
            time.sleep(0.02)
        if sign is not None:
            os.kill(int(Path("pids").read_text().split()[1]), sign)
        output = said(process)
        assert process.returncode == {None: 0}.get(sign, 128 + (sign or 0)), output
        return output

    name = "slurm_" + job["SLURM_JOB_ID"]
    assert "going on in" not in turn(0, signal.SIGTERM)
    assert Path("requeued").read_text().split() == ["requeue", job["SLURM_JOB_ID"]]
    assert f"{name}: going on in runs/tiny/{name}" in turn(1, signal.SIGKILL)
    turn(2, signal.SIGTERM, state="COMPLETING")  # cancelled by its user
    assert Path("requeued").read_text().count("requeue") == 2
    run = Path("runs/tiny") / name
    fit[fit.index("--trainer.max_steps=1500")] = "--trainer.max_steps=9"
    saved = load(run, "last")["global_step"]
    assert 0 < saved < 1500
    process = start(["bash", str(script), *fit], **job, SLURM_RESTART_COUNT="3")
    assert "is of another command of this launch" in said(process)
    assert process.returncode == 2


@pytest.fixture
def network() -> Iterator[Network]:
    """Two network namespaces and a cable between them."""
    with Network.laid() as found:
        yield found


@pytest.mark.slow
def test_a_node_is_lost_and_comes_back(config: Path, network: Network) -> None:
    fit = ("fit", "--config", str(config), "--checkpoint.every_n_train_steps=2")
    fit += ("--samples.enabled=false", "--trainer.max_steps=600", "--run_dir=run")
    first, second = network.torchrun(0, *fit), network.torchrun(1, *fit)
    network.wait_for(first, "Starting with 2 processes")
    last = Path("run/checkpoints/last.ckpt")
    while not last.exists():
        assert first.poll() is None
        time.sleep(0.05)
    lose(second)
    begin = time.monotonic()
    network.wait_for(first, "going on in run")
    assert time.monotonic() - begin < 60
    saved = last.stat().st_mtime
    while last.stat().st_mtime == saved:  # alone
        assert first.poll() is None
        time.sleep(0.05)
    back = network.torchrun(1, *fit)
    network.wait_for(first, "Starting with 2 processes", times=2)
    assert first.wait(timeout=180) == back.wait(timeout=60) == 0
    logged = losses(Path("run"))
    assert sorted(logged) == list(range(600))
    assert load(Path("run"), "last")["global_step"] == 600
