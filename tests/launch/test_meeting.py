"""Processes that are not alike, or not all there, part with the same line on each."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lightning.fabric.plugins.environments import LightningEnvironment
from torch.distributed.elastic.utils.distributed import get_free_port

from gpt4o_lit.launch import Launch, Meeting, Place
from gpt4o_lit.launch.meeting import versions

ALIKE: dict[str, Any] = {"config": "{trainer: {max_steps: 6}}", "mine": None}


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Launch:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(get_free_port()))
    return Launch(
        name="a", rank=0, world_size=3, per_node=3, nodes=1, restarts=0,
        environment=LightningEnvironment(),
    )  # fmt: skip


def meet(
    launch: Launch, run: Path, ranks: list[dict[str, Any] | None], patience: float = 20
) -> list[Any]:
    """What each rank hears, the place or an error; None stays away."""

    def come(rank: int) -> Any:
        given = ranks[rank]
        if given is None:
            return None
        try:
            one = Meeting(replace(launch, rank=rank, restarts=rank), patience)
            return one, one.agree(given["config"], choose, given["mine"])
        except ValueError as error:
            return str(error)

    def choose(restarts: int) -> Place:
        run.mkdir(exist_ok=True)
        return Place(run=str(run), checkpoint=None, processes=restarts)

    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(come, range(len(ranks))))


def test_those_that_are_alike_hear_the_place_and_the_most_restarts(
    launch: Launch, tmp_path: Path
) -> None:
    heard = meet(launch, tmp_path / "run", [ALIKE] * 3)
    assert {place for _, place in heard} == {
        Place(run=str(tmp_path / "run"), checkpoint=None, processes=2)
    }


@pytest.mark.parametrize("package", ["torch", "lightning", "gpt4o-lit", "python"])
def test_other_versions_are_refused_alike(package: str, launch: Launch, tmp_path: Path) -> None:
    other = ALIKE | {"mine": versions() | {package: "0.0"}}
    heard = meet(launch, tmp_path / "run", [ALIKE, ALIKE, other])
    assert len(set(heard)) == 1
    assert heard[0].startswith(f"rank 2 has {package} 0.0 and rank 0 has {versions()[package]};")
    assert not (tmp_path / "run").exists()


def test_another_config_is_refused_by_its_key(launch: Launch, tmp_path: Path) -> None:
    other = ALIKE | {"config": "{trainer: {max_steps: 7}}"}
    heard = meet(launch, tmp_path / "run", [ALIKE, other, ALIKE])
    assert len(set(heard)) == 1
    assert heard[0].startswith("trainer.max_steps is 7 on rank 1 and 6 on rank 0;")


def test_who_does_not_come_is_named_in_time(launch: Launch, tmp_path: Path) -> None:
    begin = time.monotonic()
    heard = meet(launch, tmp_path / "run", [ALIKE, None, ALIKE], patience=1)
    assert heard[0] == heard[2]
    assert heard[0].startswith("rank 1 of 3 did not come to the start in time;")
    assert time.monotonic() - begin < 15


def test_without_the_first_nobody_waits_for_ever(launch: Launch, tmp_path: Path) -> None:
    heard = meet(launch, tmp_path / "run", [None, ALIKE, ALIKE], patience=1)
    assert all("rank 0 did not come to 127.0.0.1 within 1 s" in line for line in heard[1:])


def test_a_place_that_cannot_be_had_is_told_to_all(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    heard = meet(launch, tmp_path / "run", [ALIKE] * 3)
    assert len(set(heard)) == 1
    assert "File exists" in heard[0]
