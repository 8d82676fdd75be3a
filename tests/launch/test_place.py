"""A restart finds the directory of its launch, and no other launch takes it."""

from dataclasses import replace
from pathlib import Path

import pytest
from lightning.fabric.plugins.environments import LightningEnvironment

from gpt4o_lit.launch import Launch, finish, keep_place, take_folder, take_place
from gpt4o_lit.launch.place import MARK

LAUNCH = Launch(
    name="torchrun_a", rank=0, world_size=4, per_node=2, nodes=2, restarts=0,
    environment=LightningEnvironment(),
)  # fmt: skip
FIT = ["fit", "--config", "tiny.yaml"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def save(run: Path) -> str:
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "checkpoints" / "last.ckpt").touch()
    return str(run / "checkpoints" / "last.ckpt")


def test_a_restart_goes_on_where_something_was_saved_and_else_begins_anew(run: Path) -> None:
    assert take_place(LAUNCH, run, FIT, 0).checkpoint is None
    (run / "config.yaml").touch()
    assert take_place(LAUNCH, run, FIT, 1).checkpoint is None
    assert not (run / "config.yaml").exists()
    last = save(run)
    fewer = replace(LAUNCH, world_size=2)
    place = take_place(fewer, run, FIT, 1)
    assert (place.checkpoint, place.processes) == (last, 4)
    assert (
        take_place(LAUNCH, run, FIT, 0).checkpoint == last
    )  # the agents themselves were restarted


def test_what_another_launch_left_is_not_gone_on_with(run: Path) -> None:
    take_place(LAUNCH, run, FIT, 0)
    with pytest.raises(FileExistsError, match="is not empty"):
        take_place(replace(LAUNCH, name="torchrun_b"), run, FIT, 1)
    take_place(LAUNCH, run, [*FIT, "--seed_everything=1"], 0)  # nothing of the first was saved
    save(run)
    with pytest.raises(ValueError, match="is of another command of this launch"):
        take_place(LAUNCH, run, FIT, 0)
    finish(run)
    again = [*FIT, "--seed_everything=1"]
    with pytest.raises(ValueError, match="a launch of the same name that has ended"):
        take_place(LAUNCH, run, again, 0)
    assert take_place(LAUNCH, run, again, 1).checkpoint is not None  # has nothing left to do


def test_whoever_starts_a_launch_may_write_a_log_where_it_runs(run: Path) -> None:
    run.mkdir()
    (run / "run.log").touch()
    with pytest.raises(FileExistsError, match="is not empty"):
        take_place(LAUNCH, run, FIT, 0)
    assert take_place(LAUNCH, run, FIT, 0, ours=True).checkpoint is None
    save(run)
    with pytest.raises(ValueError, match="is of another command of this launch"):
        take_place(LAUNCH, run, [*FIT, "--seed_everything=1"], 1, ours=True)


def test_a_restart_of_a_run_gone_back_to_goes_on_from_what_it_saved_since(run: Path) -> None:
    run.mkdir()
    last, resume = save(run), ["fit", "--resume", "run", "--resume_from", "previous"]
    assert keep_place(LAUNCH, run, resume, "step_3.ckpt").checkpoint == "step_3.ckpt"
    assert (run / MARK).is_file()
    assert keep_place(LAUNCH, run, resume, "step_3.ckpt").checkpoint == last
    other = replace(LAUNCH, name="torchrun_b")
    assert keep_place(other, run, resume, "step_3.ckpt").checkpoint == "step_3.ckpt"


def test_other_verbs_write_over_what_their_own_restart_left_alone(run: Path) -> None:
    assert take_folder(LAUNCH, run, 0).run == str(run)
    (run / "metrics.csv").touch()
    take_folder(LAUNCH, run, 1)
    with pytest.raises(FileExistsError, match="is not empty"):
        take_folder(LAUNCH, run, 0)
