"""The directory of an ablation: one process at a time, until all that it forked has ended."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpt4o_lit.callbacks.manifest import this_process
from gpt4o_lit.experiments.ablation import Ablation, Run, locked
from gpt4o_lit.experiments.grid import read_grid
from gpt4o_lit.experiments.probe import one_step
from gpt4o_lit.experiments.resolve import Variant
from gpt4o_lit.run_directory import write_manifest


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


def test_a_run_that_a_job_is_at_is_left_to_it(tmp_path: Path) -> None:
    values: dict[str, Any] = {"base": "quickstart", "variants": {"a": {"x": 1}}}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    variant = Variant(name="a", changes=[], text="x: 1", experiment=None)  # type: ignore[arg-type]
    ablation = Ablation(grid=read_grid(file), directory=tmp_path, variants=[variant])
    ablation.require_idle()
    write_manifest(tmp_path / "a" / "seed_0", {"process": this_process()})
    with pytest.raises(ValueError, match=r"a/seed_0 is run by process \d+ on .*; wait for it"):
        ablation.require_idle()


def test_a_step_to_look_at_metrics_is_told_to_no_logger_but_our_own() -> None:
    entries = [{"class_path": f"gpt4o_lit.callbacks.{name}"} for name in ("MetricsLog", "WandbRun")]
    trainer = {"logger": entries, "callbacks": None, "max_steps": 9}
    short = one_step({"trainer": trainer, "samples": {}})
    assert short["trainer"]["logger"] == entries[:1]
    assert short["trainer"]["limit_train_batches"] == 1
