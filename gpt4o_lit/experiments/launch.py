"""Runs as processes of this machine, forked from one that has imported everything already."""

import ctypes
import os
import signal
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from gpt4o_lit import cli
from gpt4o_lit.experiments.record import LOG

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
# A thread that has computed nothing, as long as this process lives: a child has the thread alone
# that forked it, and would wait for ever for the others of an OpenMP team of its own.
_FORKS = ThreadPoolExecutor(max_workers=1, thread_name_prefix="forks")


class Job(Protocol):
    """A run that has been started."""

    def poll(self) -> int | None:
        """Its exit code once it has ended; minus the signal that ended it."""

    def stop(self) -> None:
        """Have it save and end."""

    def kill(self) -> None:
        """End it."""


@dataclass
class Forked:
    """A child of this process.

    Args:
        pid: Its number.
    """

    pid: int
    _code: int | None = None

    def poll(self) -> int | None:
        """Its exit code once it has ended; minus the signal that ended it."""
        if self._code is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def stop(self) -> None:
        """Have it save and end."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self._send(signal.SIGKILL)

    def _send(self, sign: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, sign)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """This one.

    Args:
        parallel: Runs side by side.
        threads: CPU threads of each; default: the cores, shared out.
    """

    parallel: int = 1
    threads: int | None = None

    def start(self, arguments: list[str], path: Path, slot: int = 0) -> Forked:
        """Fork a process that runs a command line in the run directory `path`.

        A fork shares what was imported, which else costs each run seconds. CUDA is lost in it, so
        this process must not have used that.
        """
        path.mkdir(parents=True, exist_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        return Forked(_FORKS.submit(self._fork, arguments, path, slot).result())

    def _fork(self, arguments: list[str], path: Path, slot: int) -> int:
        """The number of the child, which never returns."""
        parent = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        try:
            os.setpgid(0, 0)  # Ctrl-C is the parent's, who tells us
            _die_with(parent)
            write_into(path / LOG)
            for sign in (signal.SIGTERM, signal.SIGINT):
                signal.signal(sign, signal.SIG_DFL)
            self._take_share(slot)
            os._exit(fit(arguments, path))
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(1)

    def _take_share(self, slot: int) -> None:
        """Of the cores, and where there are several GPUs one of those."""
        if self.parallel > 1 or self.threads:
            share = max(1, (os.cpu_count() or 1) // self.parallel)
            torch.set_num_threads(self.threads or share)
        gpus = _visible_gpus() if self.parallel > 1 else []
        if len(gpus) > 1:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]


def fit(arguments: list[str], path: Path) -> int:
    """Run a command line of `fit` in this process, in a directory that may have a log already; its
    exit code."""
    os.environ[cli.RUN_DIR] = str(path)
    os.environ.setdefault("WANDB_RUN_GROUP", path.resolve().parent.parent.name)
    os.environ["WANDB_JOB_TYPE"] = path.resolve().parent.name
    sys.argv[1:] = arguments  # for the manifest, and processes that Lightning starts
    try:
        return cli.main(arguments)
    except (ValueError, OSError) as error:
        print(f"gpt4o-lit fit: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _visible_gpus() -> list[str]:
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return given.split(",")
    return [str(number) for number in range(torch.cuda.device_count())]  # asks NVML, not CUDA


def _die_with(parent: int) -> None:
    """Save and stop when the parent is gone, as it is told to when the parent lives."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(128 + signal.SIGTERM)


def write_into(log: Path) -> None:
    """Have all that this process prints go to the end of a file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for stream, source in ((0, nothing), (1, file), (2, file)):
        os.dup2(source, stream)
    sys.stdout, sys.stderr = (
        os.fdopen(stream, "w", buffering=1, encoding="utf-8", closefd=False) for stream in (1, 2)
    )
