"""Starts runs as torchrun and srun do, and what may befall a rank of them."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from lightning import Callback

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
}
QUICK = (
    "--trainer.max_steps=12", "--checkpoint.every_n_train_steps=2", "--samples.enabled=false",
    "--trainer.val_check_interval=6",
)  # fmt: skip


class DiesOnce(Callback):
    """Sends the last rank a signal in a step, the first time that it comes there."""

    def __init__(self, step: int, sign: int = 9) -> None:
        self.step, self.sign = step, sign

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        last = trainer.world_size - 1
        if trainer.global_step != self.step or trainer.global_rank != last:
            return
        mark = Path(f"died_{self.step}")
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), self.sign)


def torchrun(*arguments: str, restarts: int = 3, name: str = "a", **extra: str) -> list[str]:
    """The command of a launch of two processes on this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += [f"--max-restarts={restarts}", f"--rdzv-id={name}", "--monitor-interval=0.05"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in extra.items()]
    return [*command, *flags, "-m", "gpt4o_lit", *arguments]


def start(command: list[str], **environment: str) -> subprocess.Popen[str]:
    """A process with all it prints in one pipe."""
    return subprocess.Popen(
        command, env=ENVIRONMENT | environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def lose(process: subprocess.Popen[str]) -> None:
    """Kill it and all that it started, which has sessions of its own."""
    with suppress(psutil.NoSuchProcess):
        for each in [*psutil.Process(process.pid).children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                each.kill()
    process.wait(timeout=30)


def said(process: subprocess.Popen[str], seconds: float = 240) -> str:
    """What it printed, once it has ended; nothing of it stays."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        lose(process)
        raise


class Network:
    """Two nodes of one process each, in network namespaces with an address of their own."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.started: list[subprocess.Popen[str]] = []

    @classmethod
    @contextmanager
    def laid(cls) -> Iterator["Network"]:
        """Skips the test where the machine does not allow it."""
        if shutil.which("ip") is None:
            pytest.skip("needs iproute2's ip")
        number = os.getpid() % 10_000
        names = [f"node{place}_{number}" for place in range(2)]
        ports = [f"v{place}_{number}" for place in range(2)]
        commands = [f"netns add {name}" for name in names]
        commands.append(
            f"link add {ports[0]} netns {names[0]} type veth peer name {ports[1]} netns {names[1]}"
        )
        for place, (name, port) in enumerate(zip(names, ports, strict=True)):
            commands += [f"-n {name} addr add 10.213.7.{place + 1}/24 dev {port}"]
            commands += [f"-n {name} link set lo up", f"-n {name} link set {port} up"]
        network = cls(names)
        try:
            for command in commands:
                done = subprocess.run(["ip", *command.split()], capture_output=True, text=True)
                if done.returncode:
                    pytest.skip(f"no network namespaces here: ip {command}: {done.stderr.strip()}")
            yield network
        finally:
            for process in network.started:
                lose(process)
            for name in names:
                subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def torchrun(self, node: int, *arguments: str) -> subprocess.Popen[str]:
        """The agent of a node, in a session with its process; what they print is in a file."""
        patience = "last_call_timeout=2,keep_alive_interval=1,keep_alive_max_attempt=3"
        command = torchrun(*arguments, nproc_per_node="1", nnodes="1:2")
        extra = {
            "rdzv-endpoint": "10.213.7.1:29400",
            "rdzv-conf": f"{patience},is_host={int(node == 0)}",
            "local-addr": f"10.213.7.{node + 1}",
        }
        place = command.index("gpt4o_lit") - 1
        command[place:place] = [f"--{key}={value}" for key, value in extra.items()]
        # gloo looks for the address of the machine's name, which neither node has.
        port = {"GLOO_SOCKET_IFNAME": self.names[node].replace("node", "v")}
        with Path(f"said_{len(self.started)}").open("w") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.names[node], *command], text=True,
                env=ENVIRONMENT | port, start_new_session=True, stdout=log, stderr=log,
            )  # fmt: skip
        self.started.append(process)
        return process

    def wait_for(
        self, process: subprocess.Popen[str], line: str, times: int = 1, seconds: float = 240
    ) -> None:
        """Until it has said so."""
        log = Path(f"said_{self.started.index(process)}")
        deadline = time.monotonic() + seconds
        while log.read_text().count(line) < times:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.05)
