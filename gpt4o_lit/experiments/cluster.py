"""Runs as jobs of a cluster, or as jobs of this machine, through submitit."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from gpt4o_lit.experiments.ablation import Run
from gpt4o_lit.experiments.launch import Job, fit, write_into
from gpt4o_lit.experiments.record import LOG


class Cluster:
    """Submits a job for each run, and finds those again that were submitted before.

    Args:
        kind: slurm, or local: a process of this machine for each.
        folder: Where submitit keeps what jobs are and print.
        options: KEY=VALUE, as submitit's `update_parameters` takes them.
    """

    def __init__(self, kind: str, folder: Path, options: list[str]) -> None:
        self.kind, self.folder = kind, folder
        submitit = _submitit()
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=kind)
            self._executor.update_parameters(**read_options(options))
        except (NameError, TypeError, ValueError, RuntimeError, AssertionError) as error:
            raise ValueError(f"--cluster {kind}: {' '.join(str(error).split())}") from error

    def default_parallel(self, runs: int) -> int:
        """All at once where a scheduler lets them wait."""
        return max(1, runs) if self.kind == "slurm" else 1

    def start(self, run: Run, slot: int) -> Job:
        """Submit a run, or take over its job that waits or runs already."""
        number = self.folder / f"{run.variant}_seed_{run.seed}.job"
        if number.is_file():
            job = self._found(number.read_text(encoding="utf-8").strip())
            if job is not None:
                return job
        try:
            job = self._executor.submit(Fit(run, Path.cwd()))
        except (_submitit().core.utils.FailedJobError, OSError) as error:
            raise ValueError(f"{self.kind} takes no job: {' '.join(str(error).split())}") from error
        number.write_text(job.job_id, encoding="utf-8")
        return Submitted(job, outlives_us=self.kind == "slurm")

    def _found(self, number: str) -> Job | None:
        """A job that was submitted by an earlier process, unless it has ended."""
        if self.kind == "local":  # whose jobs go by the number of their process
            found = Process(int(number))
            return None if found.poll() is not None else found
        job = _submitit().SlurmJob(self.folder, number)
        return None if job.done(force_check=True) else Submitted(job, outlives_us=True)


@dataclass
class Fit:
    """What a job does: it begins a run or goes on with it, also when it is put in the queue again.

    Args:
        run: The run.
        home: The folder that its config's paths are seen from.
    """

    run: Run
    home: Path

    def __call__(self) -> int:
        """Its exit code."""
        os.chdir(self.home)
        sys.path.append(str(self.home))  # class paths of the user's own modules
        is_first = os.environ.get("SLURM_PROCID", "0") == "0"
        arguments = self.run.arguments(clears=is_first)
        self.run.path.mkdir(parents=True, exist_ok=True)
        write_into(self.run.path / LOG)
        return fit(arguments, self.run.path)

    def checkpoint(self) -> Any:
        """The job that takes its place when it is preempted or out of time: the same."""
        return _submitit().helpers.DelayedSubmission(self)


@dataclass
class Submitted:
    """A job of submitit's.

    Args:
        job: It.
        outlives_us: It goes on when this process stops.
    """

    job: Any
    outlives_us: bool
    _left_alone: bool = False

    def poll(self) -> int | None:
        """Its exit code once it has ended."""
        if self._left_alone:
            return 0
        if not self.job.done():
            return None
        return 1 if self.job.exception() is not None else int(self.job.result())

    def stop(self) -> None:
        """Have it save and end, unless it outlives us."""
        self._left_alone = self.outlives_us
        if self.outlives_us:
            print(f"job {self.job.job_id} goes on; scancel ends it", file=sys.stderr)
        else:
            self.job.cancel(check=False)

    def kill(self) -> None:
        """Do no more than that."""
        self.stop()


@dataclass
class Process:
    """A local job of a process that is gone.

    Args:
        pid: Its number.
    """

    pid: int

    def poll(self) -> int | None:
        """0 once it is gone: how it ended its files tell."""
        try:
            found = psutil.Process(self.pid)
            alive = found.status() != psutil.STATUS_ZOMBIE and "submitit" in str(found.cmdline())
        except psutil.NoSuchProcess:
            alive = False
        return None if alive else 0

    def stop(self) -> None:
        """Have it save and end."""
        if self.poll() is None:
            psutil.Process(self.pid).terminate()

    def kill(self) -> None:
        """End it."""
        if self.poll() is None:
            psutil.Process(self.pid).kill()


def read_options(options: list[str]) -> dict[str, Any]:
    """KEY=VALUE pairs, values as YAML has them.

    Raises:
        ValueError: one is no such pair.
    """
    pairs = [option.partition("=") for option in options]
    for option, (key, sign, _) in zip(options, pairs, strict=True):
        if not key or not sign:
            raise ValueError(f"--cluster_options {option}: write KEY=VALUE, such as timeout_min=60")
    return {key: yaml.safe_load(value) for key, _, value in pairs}


def _submitit() -> Any:
    # Else it sets up logging when it is imported, and closes the handlers of everybody.
    os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise ValueError("--cluster needs submitit: pip install 'gpt4o-lit[cluster]'") from error
    return submitit
