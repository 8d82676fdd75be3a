"""MLflow: one run of theirs for each of ours, however often it goes on."""

import json
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

from gpt4o_lit.run_directory import deployment_of, read_manifest

ID = "mlflow_id"  # a file of the run's directory
STORE = Path("runs") / "mlflow"
FILES = ("config.yaml", "MODEL_CARD.md", "samples.md")
LONGEST = 6000
"""Letters of a parameter, as many as MLflow takes; config.yaml has all of them."""


class MlflowRun(MLFlowLogger):
    """Shows a run in MLflow: config, curves, pictures, and at its end config, card and samples.

    A run that goes on is the run that it was. All of them are seen by
    `mlflow ui --backend-store-uri sqlite:///runs/mlflow/mlflow.db` (pip: mlflow), or on a server.

    Args:
        experiment_name: What MLflow keeps runs together by.
        tracking_uri: A server or a database. Default: a file of SQLite, runs/mlflow/mlflow.db.
        tags: More to find it by than its directory and, in an ablation, its group and variant.
        save_dir: Set by the run directory.
    """

    def __init__(
        self,
        experiment_name: str = "gpt4o-lit",
        tracking_uri: str | None = None,
        tags: dict[str, str] | None = None,
        save_dir: str = ".",
    ) -> None:
        self.path = Path(save_dir).resolve()
        self._alone: AbstractContextManager[Any] = nullcontext()
        place = None
        if tracking_uri is None:
            STORE.mkdir(parents=True, exist_ok=True)
            # Of runs that start together one alone makes tables and the experiment.
            self._alone = FileLock(STORE / "lock")
            tracking_uri = f"sqlite:///{(STORE / 'mlflow.db').resolve()}"
            place = (STORE / "artifacts").resolve().as_uri()
        with self._alone:
            super().__init__(
                experiment_name=experiment_name,
                run_name=f"{self.path.parent.name}/{self.path.name}",
                tracking_uri=tracking_uri,
                tags={"directory": str(self.path), **_ablation(), **(tags or {})},
                artifact_location=place,
                run_id=_id_of(self.path),
            )

    @property
    def experiment(self) -> Any:
        """MLflow's client; the run is there when it is first asked for.

        Raises:
            ValueError: the store does not have the run that this one was.
        """
        if self._initialized:
            return super().experiment
        from mlflow.exceptions import MlflowException

        before = self._run_id
        with self._alone:
            try:
                client: Any = super().experiment
            except MlflowException as error:
                if before is None:
                    raise ValueError(f"MLflow takes no run: {error}") from error
                raise ValueError(
                    f"{self._tracking_uri} has no run {before}; remove {self.path / ID} to begin a "
                    "new one there"
                ) from error
        if self._run_id is not None:  # else this is not the first of several processes
            if before is None:
                (self.path / ID).write_text(str(self._run_id), encoding="utf-8")
            else:
                client.update_run(self._run_id, status="RUNNING")
        return client

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any) -> None:
        """Values by dotted keys; MLflow keeps those that a run had first."""
        from mlflow.entities import Param

        known = self.experiment.get_run(self.run_id).data.params
        values = params if isinstance(params, Mapping) else vars(params)
        new = [Param(key, text) for key, text in _flat(values) if key not in known]
        for first in range(0, len(new), 100):  # as many as it takes at once
            self.experiment.log_batch(self.run_id, params=new[first : first + 100])

    @rank_zero_only
    def log_image(self, key: str, images: list[str], step: int | None = None) -> None:
        """Keep PNG files as KEY/step_N/NAME."""
        for image in images:
            self.experiment.log_artifact(self.run_id, image, f"{key}/step_{step or 0}")

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Hand over what the run wrote, and end theirs."""
        if self._initialized:
            left = vars(deployment_of(self.path, read_manifest(self.path)))
            self.log_metrics({f"deployed/{k}": v for k, v in left.items() if v is not None})
            for name in FILES:
                if (self.path / name).is_file():
                    self.experiment.log_artifact(self.run_id, str(self.path / name))
        super().finalize(status)


def _ablation() -> dict[str, str]:
    """Where the run stands in one, as W&B is told it too."""
    names = {"group": "WANDB_RUN_GROUP", "variant": "WANDB_JOB_TYPE"}
    return {tag: os.environ[name] for tag, name in names.items() if name in os.environ}


def _id_of(path: Path) -> str | None:
    file = path / ID
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            yield f"{prefix}{name}", text[:LONGEST]
