"""Several loggers at once: what each was told of one run, read back by each one's own reader."""

from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks import MlflowRun
from gpt4o_lit.callbacks.metrics_log import read_metrics
from tests.callbacks.test_wandb_run import told
from tests.end_to_end.conftest import write_config


def losses() -> list[tuple[int, float]]:
    rows = read_metrics(Path("run/metrics.csv"))
    return [(row["step"], row["val/loss"]) for row in rows if "val/loss" in row]


def mlflows_run(client: MlflowClient) -> Any:
    (run,) = client.search_runs([client.get_experiment_by_name("gpt4o-lit").experiment_id])
    return run


def test_a_run_that_goes_on_is_one_of_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    Path("run/config.yaml").write_text("name: tiny\n")
    for step in (3, 6):
        logger = MlflowRun(save_dir="run")
        logger.log_hyperparams({"trainer": {"max_steps": step}, "callbacks": [{"a": 1}]})
        logger.log_metrics({"val/loss": 1 / step}, step=step)
        logger.finalize("success")
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow/mlflow.db")
    run = mlflows_run(client)
    assert run.info.run_id == Path("run/mlflow_id").read_text()
    assert run.info.status == "FINISHED"
    assert run.data.params == {"trainer.max_steps": "3", "callbacks": '[{"a": 1}]'}
    told = client.get_metric_history(run.info.run_id, "val/loss")
    assert [(each.step, each.value) for each in told] == [(3, 1 / 3), (6, 1 / 6)]
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["config.yaml"]
    Path("run/mlflow_id").write_text("0" * 32)
    with pytest.raises(ValueError, match="has no run 000"):
        MlflowRun(save_dir="run").log_metrics({"val/loss": 1.0}, step=9)


@pytest.mark.slow
def test_all_loggers_at_once_are_told_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_RUN_GROUP", "a_question")
    overlays = ("mlflow", "wandb", "tensorboard", "prune_magnitude", "sparsity_map")
    flags = [word for name in overlays for word in ("--config", f"with/{name}")]
    given = ["--config", str(write_config(tmp_path)), "--run_dir", "run", *flags]
    assert main(["fit", *given, "--trainer.max_steps=3"]) == 0
    assert main(["fit", "--resume", "run", "--trainer.max_steps=6"]) == 0
    expected = losses()
    assert [step for step, _ in expected] == [2, 5]

    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow/mlflow.db")
    run = mlflows_run(client)  # one, though it was told to go on
    assert run.data.tags["group"] == "a_question"
    mlflows = client.get_metric_history(run.info.run_id, "val/loss")
    assert [(each.step, each.value) for each in mlflows] == expected
    assert {"config.yaml", "samples.md"} <= {f.path for f in client.list_artifacts(run.info.run_id)}
    pictures = client.list_artifacts(run.info.run_id, "sparsity/density/step_6")
    assert [each.path for each in pictures] == ["sparsity/density/step_6/density.png"]

    events = EventAccumulator("run/tensorboard").Reload()
    boards = [(each.step, each.value) for each in events.Scalars("val/loss")]
    assert [step for step, _ in boards] == [step for step, _ in expected]
    values = [value for _, value in expected]
    assert [value for _, value in boards] == pytest.approx(values, rel=1e-6)
    assert [float(value) for value in wandbs_losses(Path("run"))] == pytest.approx(values, rel=1e-6)


def wandbs_losses(run: Path) -> list[str]:
    return [
        item.value_json
        for record in told(run) if record.HasField("history")
        for item in record.history.item if "val/loss" in ("/".join(item.nested_key), item.key)
    ]  # fmt: skip
