"""Distillation within a run: a parent heals what is cut out of it, wherever the run was stopped."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from gpt4o_lit.callbacks.metrics_log import read_metrics
from gpt4o_lit.model import TransformerConfig
from tests.callbacks.test_distillation import write_run
from tests.end_to_end.conftest import kill_and_resume, load, weights
from tests.end_to_end.test_fit import assert_equal, assert_same_losses, fit, fit_on_two


@pytest.fixture
def healing(config: Path) -> Path:
    """One file: half of the run `base` is cut out, and what is left learns from the whole of it."""
    values: dict[str, Any] = yaml.safe_load(config.read_text(encoding="utf-8"))
    arguments = values["model"]["init_args"]
    write_run(Path("base"), TransformerConfig.from_dict(arguments.pop("transformer")))
    arguments |= {"pretrained": "base", "dropout": 0.0}
    cut = {"cut": {"heads": 0.5, "channels": 0.5, "multiple_of": 8}, "at": 2, "num_batches": 2}
    values["trainer"]["limit_val_batches"] = 1
    values["trainer"]["callbacks"] = [
        {"class_path": "gpt4o_lit.callbacks.StructuredPruning", "init_args": cut},
        {"class_path": "gpt4o_lit.callbacks.Distillation", "init_args": {"hidden": 0.5}},
    ]
    path = config.parent / "heal.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_a_parent_heals_what_is_cut_out_of_it(healing: Path) -> None:
    run = fit(healing, "run")
    rows = read_metrics(run / "metrics.csv")
    for column in ("distillation/loss", "distillation/hidden"):
        apart = [row[column] for row in rows]
        assert apart[0] == pytest.approx(0, abs=1e-6)  # at first it is its parent
        assert min(apart[2:]) > 1e-4
    saved = load(run, "last")
    assert saved["transformer_config"]["decoder"]["attention"]["num_heads"] == 1
    assert saved["state_dict"].keys() == load(Path("base"), "best")["state_dict"].keys()


@pytest.mark.slow
def test_two_processes_learn_from_a_teacher_as_one_does(healing: Path) -> None:
    flags = ["--trainer.max_steps", "3"]
    alone = fit(healing, "alone", *flags)
    half = "--data.init_args.batch_size=2"
    fit_on_two("--config", str(healing), "--run_dir", "together", *flags, half)
    assert_equal(weights(alone), weights(Path("together")), atol=1e-5)
    assert_same_losses(alone, Path("together"))
    losses = [
        [row["distillation/loss"] for row in read_metrics(Path(run) / "metrics.csv")]
        for run in ("alone", "together")
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_with_its_teacher_bit_by_bit(healing: Path) -> None:
    flags = ("--trainer.max_steps", "200", "--trainer.val_check_interval", "25")
    whole = fit(healing, "whole", *flags)
    stopped = kill_and_resume(healing, flags, rows=60)
    assert 50 <= stopped < 150
    assert_equal(weights(whole), weights(Path("run")), atol=0)


@pytest.mark.slow
def test_a_compiled_student_learns_from_a_compiled_teacher_the_same(healing: Path) -> None:
    plain = fit(healing, "plain")
    compiled = fit(healing, "compiled", "--config", "with/compile")
    assert_equal(weights(plain), weights(compiled), atol=1e-4)
