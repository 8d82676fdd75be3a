"""Runs programs that a network wrote, where they can do little harm, and counts the right ones.

A program has a process of its own, in an empty folder that is thrown away, with limits of time,
memory and files, and without network: it runs in a network namespace that has no device but its
own loopback. It still reads what its user may read: run nothing here that is meant to attack.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

NO_NETWORK = 97  # exit status of a launcher that cannot leave the network
LAUNCHER = f"""
import ctypes, os, resource, sys
if ctypes.CDLL(None).unshare(0x10000000 | 0x40000000):  # CLONE_NEWUSER, CLONE_NEWNET
    sys.exit({NO_NETWORK})
seconds, memory, nonce = int(sys.argv[1]), int(sys.argv[2]), sys.stdin.readline()
limits = (("CPU", seconds + 1), ("AS", memory), ("FSIZE", 1 << 20), ("CORE", 0), ("NOFILE", 64))
for name, value in limits:
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
told, sys.argv = os.dup(1), ["program"]
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
exec(compile(sys.stdin.read(), "program", "exec"), {{"__name__": "__main__"}})
os.write(told, nonce.encode())
"""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a program may take."""

    seconds: float = 5.0
    """Until it is killed."""
    memory_bytes: int = 1 << 30
    """Of address space."""

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise ValueError(f"seconds ({self.seconds}) must be above 0; set it to 5")


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    passed: bool
    """Whether it came to its end without an error."""
    reason: str
    """`passed`, `timed out`, or the last line of its error."""


@dataclass(frozen=True)
class Problem:
    """A function to complete, and the test of it, as HumanEval has them (arXiv:2107.03374)."""

    name: str
    prompt: str
    """Imports, the function's head and what it is to do."""
    test: str
    """Defines `check(candidate)`."""
    entry_point: str
    """The function's name."""

    @classmethod
    def of(cls, values: Mapping[str, object]) -> "Problem":
        """A row of HumanEval.

        Raises:
            ValueError: a column is missing.
        """
        columns = ("task_id", "prompt", "test", "entry_point")
        missing = [name for name in columns if name not in values]
        if missing:
            raise ValueError(f"there is no column {missing[0]!r} of HumanEval's; rename yours")
        return cls(*(str(values[name]) for name in columns))

    def program(self, completion: str) -> str:
        """What is run to see whether a completion is right."""
        return f"{self.prompt}{completion}\n{self.test}\ncheck({self.entry_point})\n"


STOP = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\n@")
"""Where a completed function is over: strings to stop before."""


def run_program(text: str, limits: Limits | None = None) -> Outcome:
    """Run a program of Python to its end or its limits.

    Raises:
        OSError: this system lets no process leave the network.
    """
    limits = limits or Limits()
    nonce = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / ".errors", "w+b") as errors:
        command = [sys.executable, "-I", "-c", LAUNCHER]
        command += [str(max(1, round(limits.seconds))), str(limits.memory_bytes)]
        process = subprocess.Popen(
            command, cwd=folder, env={"PATH": os.defpath, "PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
        )  # fmt: skip
        try:
            told, _ = process.communicate(f"{nonce}\n{text}".encode(), timeout=limits.seconds)
        except subprocess.TimeoutExpired:
            return Outcome(False, "timed out")
        finally:
            _end(process)
        if process.returncode == NO_NETWORK:
            raise OSError(
                "no process may leave the network here (user namespaces are switched off), and "
                "programs of a network are not run beside it; allow them: "
                "sysctl kernel.unprivileged_userns_clone=1"
            )
        if told.decode(errors="replace").strip() == nonce:
            return Outcome(True, "passed")
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
        status = f"ended with status {process.returncode}, before its test"
        return Outcome(False, lines[-1] if lines else status)


def pass_at_k(rights: Sequence[int], samples: int, k: int) -> float:
    """The chance that one of k answers is right, in the mean over problems (arXiv:2107.03374).

    Args:
        rights: For each problem, how many of its answers are right.
        samples: How many answers each has.
        k: At most samples.

    Raises:
        ValueError: k is not within 1 and samples, or there is no problem.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"k ({k}) must be within 1 and the samples ({samples}); draw more samples")
    if not rights:
        raise ValueError("pass@k of 0 problems is not defined; give at least 1")
    chances = []
    for right in rights:
        wrong_all = 1.0
        for number in range(samples - right + 1, samples + 1):
            wrong_all *= 1 - k / number
        chances.append(1.0 - (wrong_all if samples - right >= k else 0.0))
    return sum(chances) / len(chances)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill what is left of it: itself, and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
