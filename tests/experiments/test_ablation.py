"""The directory of an ablation: one process at a time, until all that it forked has ended."""

import os
import time
from pathlib import Path

import pytest

from gpt4o_lit.experiments.ablation import Run, locked


def test_a_directory_is_held_until_the_last_fork_has_ended(tmp_path: Path) -> None:
    told: list[str] = []
    with locked(tmp_path, told.append):
        with (
            pytest.raises(ValueError, match="is run by another process"),
            locked(tmp_path, told.append, patience=0.0),
        ):
            pass
        child = os.fork()
        if child == 0:
            time.sleep(0.5)
            os._exit(0)
    with (
        pytest.raises(ValueError, match="is run by another process"),
        locked(tmp_path, told.append, patience=0.0),
    ):
        pass
    assert not told
    with locked(tmp_path, told.append, patience=60.0):
        assert told == [f"waiting for runs in {tmp_path} that are about to end"]
    os.waitpid(child, 0)


def test_a_run_that_saved_goes_on_and_another_begins_anew(tmp_path: Path) -> None:
    run = Run(variant="a", seed=3, path=tmp_path / "a" / "seed_3")
    begin = ["fit", "--config", str(tmp_path / "a" / "variant.yaml"), "--seed_everything", "3"]
    assert run.arguments() == [*begin, "--run_dir", str(run.path)]
    (run.path / "checkpoints").mkdir(parents=True)
    for name in ("run.log", "config.yaml", "checkpoints/step_2.ckpt.part"):
        (run.path / name).touch()
    assert run.arguments(clears=False)[:3] == begin[:3]
    assert (run.path / "config.yaml").exists()
    assert run.arguments()[:3] == begin[:3]
    assert [path.name for path in run.path.iterdir()] == ["run.log"]
    (run.path / "checkpoints").mkdir()
    (run.path / "checkpoints" / "last.ckpt").touch()
    assert run.arguments() == ["fit", "--resume", str(run.path)]
