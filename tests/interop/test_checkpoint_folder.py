"""Checkpoints in parts: a folder is what was saved first or last, at any moment."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from gpt4o_lit.interop import checkpoint_folder
from gpt4o_lit.interop.checkpoint_folder import load_folder, remove, split, write_folder


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Any]:
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield distributed.group.WORLD
    distributed.destroy_process_group()


def write(value: float, folder: Path, group: Any) -> None:
    mesh = init_device_mesh("cpu", (1,))
    weight = distribute_tensor(torch.full((4, 2), value), mesh, [Shard(0)])
    assert isinstance(weight, DTensor)
    plain, parts = split({"state_dict": {"weight": weight, "tied": weight}, "step": value})
    write_folder(plain, parts, folder, group)


def read(folder: Path) -> float:
    checkpoint = load_folder(folder)
    for name in ("weight", "tied"):
        assert torch.equal(checkpoint["state_dict"][name], torch.full((4, 2), checkpoint["step"]))
    return float(checkpoint["step"])


@pytest.mark.parametrize("can_swap", [True, False])
def test_a_step_that_is_saved_again_takes_the_place_of_the_first(
    can_swap: bool, tmp_path: Path, group: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_swap:  # as on a file system of a network
        monkeypatch.setattr(checkpoint_folder, "_exchanged", lambda one, other: False)
    folder = tmp_path / "step_1.ckpt"
    for value in (1.0, 2.0):
        write(value, folder, group)
        assert read(folder) == value
    assert {path.name for path in tmp_path.iterdir()} == {"step_1.ckpt", "store"}


def test_at_no_moment_is_there_no_checkpoint(
    tmp_path: Path, group: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is removed is looked at when it has got the other's name, and when it is gone."""
    folder, seen = tmp_path / "step_1.ckpt", []
    write(1.0, folder, group)

    def watched(path: Path) -> None:
        seen.append((path.name, read(folder)))
        remove(path)
        seen.append((path.name, read(folder)))

    monkeypatch.setattr(checkpoint_folder, "remove", watched)
    write(2.0, folder, group)
    assert [value for _, value in seen] == [2.0, 2.0]
    assert folder.name not in {name for name, _ in seen}
