"""All processes of a launch meet before any process group forms, and agree or part."""

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from torch._C._distributed_c10d import Store, TCPStore
from torch.distributed import DistError

from gpt4o_lit import __version__
from gpt4o_lit.launch.launch import AGENT_STORE, Launch
from gpt4o_lit.launch.place import Place

PATIENCE = 150.0
"""Seconds in which all of a launch must have come to the store; torch tries up to twice as long."""
FAREWELL = 10.0
"""Seconds in which they read why nothing comes of it."""


def versions() -> dict[str, str]:
    """What must be the same on all nodes."""
    found = {"gpt4o-lit": __version__, "python": ".".join(platform.python_version_tuple()[:2])}
    for package in ("torch", "lightning"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


class Meeting:
    """All processes of a launch at a store of their own, before there is any process group."""

    def __init__(self, launch: Launch, patience: float = PATIENCE) -> None:
        self.launch, self._deadline = launch, time.monotonic() + patience
        self._came = list(range(launch.world_size))
        try:
            self.store = _store_of(launch, timedelta(seconds=patience))
        except DistError as error:
            if launch.rank == 0:
                said = str(error).partition("\n")[0]
                raise ValueError(f"no store can be opened: {said}; set MASTER_PORT") from error
            raise ValueError(
                f"rank 0 did not come to {launch.environment.main_address} within {patience:.0f} "
                "s; look what its node says, and whether this one reaches it"
            ) from error

    def agree(
        self, config: str, choose: Callable[[int], Place], mine: dict[str, str] | None = None
    ) -> Place:
        """See that all have the same versions and config, and hear where to work.

        Args:
            config: The config in YAML.
            choose: Takes the place, on the first process alone, given the most restarts.
            mine: Versions here.

        Raises:
            ValueError: they are not alike, some did not come, or there is no place; the same line
                on every process.
        """
        mine = mine or versions()
        here = {"versions": mine, "config": config, "restarts": self.launch.restarts}
        self._tell(f"facts/{self.launch.rank}", here)
        if self.launch.rank == 0:
            self._tell("verdict", self._judge(choose))
        verdict = self._hear("verdict", self._left() + 60)
        if "error" not in verdict:
            seen = _sees(Path(verdict["place"]["run"]), self._left())
            self._tell(f"seen/{self.launch.rank}", seen)
            if self.launch.rank == 0:
                self._tell("end", self._see(verdict))
            verdict = self._hear("end", self._left() + 60)
        if "error" in verdict:
            self._part()
            raise ValueError(verdict["error"])
        return Place(**verdict["place"])

    def _part(self) -> None:
        """Keep the store until all have read why nothing comes of it."""
        self._tell(f"heard/{self.launch.rank}", True)
        self._deadline = time.monotonic() + FAREWELL
        if self.launch.rank == 0:
            self._of_all("heard")

    def _judge(self, choose: Callable[[int], Place]) -> dict[str, Any]:
        facts = self._of_all("facts")
        self._came = [rank for rank in self._came if facts[rank] is not None]
        error = missing(facts) or difference(facts)
        if error:
            return {"error": error}
        try:
            return {"place": asdict(choose(max(fact["restarts"] for fact in facts)))}
        except (ValueError, OSError) as problem:
            return {"error": str(problem)}

    def _see(self, verdict: dict[str, Any]) -> dict[str, Any]:
        seen = self._of_all("seen")
        blind = [rank for rank, sees in enumerate(seen) if not sees]
        if missing(seen) or not blind:
            return {"error": missing(seen)} if missing(seen) else verdict
        run = Path(verdict["place"]["run"]).absolute()
        return {
            "error": f"rank {blind[0]} does not see {run}, which rank 0 has made; start all nodes "
            "in one folder, on a file system that they share"
        }

    def _of_all(self, what: str) -> list[Any]:
        """What each has told; None of those that did not, or never came."""
        ranks = range(self.launch.world_size)
        return [
            self._hear(f"{what}/{rank}", self._left()) if rank in self._came else None
            for rank in ranks
        ]

    def _left(self) -> float:
        return max(self._deadline - time.monotonic(), 0.1)

    def _tell(self, key: str, value: Any) -> None:
        self.store.set(f"launch/{key}", json.dumps(value))

    def _hear(self, key: str, seconds: float) -> Any:
        """What was told; None if nobody did in time.

        Raises:
            ValueError: whoever keeps the store has gone.
        """
        try:
            self.store.wait([f"launch/{key}"], timedelta(seconds=seconds))
            return json.loads(self.store.get(f"launch/{key}"))
        except DistError as error:
            if "/" in key and self.launch.rank == 0:
                return None
            raise ValueError(
                "rank 0 left before all had met; its own error says why, on its node"
            ) from error


def missing(facts: list[Any]) -> str:
    """One line about the ranks that told nothing; empty if all did."""
    silent = [str(rank) for rank, fact in enumerate(facts) if fact is None]
    if not silent:
        return ""
    ranks = f"rank{'s' if len(silent) > 1 else ''} {', '.join(silent)}"
    return f"{ranks} of {len(facts)} did not come to the start in time; look what their nodes say"


def difference(facts: list[dict[str, Any]]) -> str:
    """One line about how the first process that is not like rank 0 differs; empty if none does."""
    first = facts[0]
    for rank, fact in enumerate(facts):
        for package, installed in first["versions"].items():
            if fact["versions"].get(package) != installed:
                return (
                    f"rank {rank} has {package} {fact['versions'].get(package)} and rank 0 has "
                    f"{installed}; install the same on all nodes"
                )
        if fact["config"] != first["config"]:
            ours, theirs = _flat(first["config"]), _flat(fact["config"])
            key = next((k for k in {**ours, **theirs} if ours.get(k) != theirs.get(k)), "config")
            return (
                f"{key} is {theirs.get(key)} on rank {rank} and {ours.get(key)} on rank 0; give "
                "the same command and the same config files on all nodes"
            )
    return ""


def _flat(config: str) -> dict[str, Any]:
    """A config's values by their dotted keys."""
    found: dict[str, Any] = {}

    def walk(value: Any, key: str) -> None:
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                walk(inner, f"{key}.{name}" if key else str(name))
        elif isinstance(value, list) and value:
            for place, inner in enumerate(value):
                walk(inner, f"{key}.{place}")
        else:
            found[key] = value

    walk(yaml.safe_load(config), "")
    return found


def _sees(run: Path, seconds: float) -> bool:
    """Whether the directory is there, which over a network may take a while."""
    deadline = time.monotonic() + min(seconds, 30)
    while not run.is_dir():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _store_of(launch: Launch, timeout: timedelta) -> Store:
    """A store that rank 0 keeps, and that has nothing of a round before: gloo would believe it.

    torchrun's agents may keep one for all rounds. There rank 0 opens another and tells its port.
    """
    address, port = launch.environment.main_address, launch.environment.main_port
    first = launch.rank == 0
    if os.environ.get(AGENT_STORE) != "True":
        return TCPStore(address, port, None, first, timeout, False, multi_tenant=True)
    agents = TCPStore(address, port, None, False, timeout, False)
    key = f"gpt4o_lit/port_{launch.restarts}"
    if first:
        store = TCPStore(address, 0, None, True, timeout, False, multi_tenant=True)
        agents.set(key, str(store.port))
    else:
        store = TCPStore(address, int(agents.get(key)), None, False, timeout, False)
    os.environ |= {"MASTER_PORT": str(store.port), AGENT_STORE: "False"}
    return store
