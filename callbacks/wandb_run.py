"""Weights & Biases: one run of theirs for each of ours, however often it goes on."""

import importlib
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from gpt4o_lit.run_directory import (
    PACKED,
    WANDB_ID,
    RunDirectory,
    deployment_of,
    read_manifest,
)

TAKEN = ("perf/tokens", "perf/seconds", "perf/flops")


class WandbRun(WandbLogger):
    """Shows a run in Weights & Biases: config, curves, samples, pictures, and what is left of it.

    A run that goes on has the id that it had. At the end its best checkpoint and `RUN/compressed`
    become artifacts; what came of another run names that one's, and where the server can be reached
    is linked with it. Offline (WANDB_MODE=offline) all of it lies in `RUN/wandb`, for `wandb sync`.

    Args:
        project: Where W&B keeps the run.
        entity: Whose project. Default: the one that W&B knows you by.
        group: What the run is shown with. Default: WANDB_RUN_GROUP; for an ablation, its name.
        job_type: What it is there. Default: WANDB_JOB_TYPE; for an ablation, the variant.
        tags: Words to find it by.
        artifacts: Hand checkpoint and compressed directory over too.
        save_dir: Set by the run directory.
    """

    def __init__(
        self,
        project: str = "gpt4o-lit",
        entity: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: list[str] | None = None,
        artifacts: bool = True,
        save_dir: str = ".",
    ) -> None:
        path = Path(save_dir).resolve()
        super().__init__(
            name=f"{path.parent.name}/{path.name}",
            save_dir=str(path),  # their process may stand elsewhere
            id=_id_of(path) or _new_id(path),
            project=project,
            entity=entity,
            group=group,
            job_type=job_type,
            tags=tags,
        )
        self.artifacts = artifacts
        self._taken: dict[str, Any] = {}

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Each row with what the run took so far: W&B draws by what stands in one row alone."""
        self._taken |= {name: metrics[name] for name in TAKEN if name in metrics}
        super().log_metrics({**self._taken, **metrics}, step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Hand over what the run left, and end theirs; one that goes on opens it again."""
        wandb: Any = importlib.import_module("wandb")
        if self._experiment is None or self._experiment is not wandb.run:
            return  # it has ended already
        run = RunDirectory(Path(str(self.save_dir)))
        self._tell_deployment(run)
        if self.artifacts and status == "success":
            self._hand_over(run)
        wandb.finish(exit_code=0 if status == "success" else 1)
        self._experiment = None

    def _tell_deployment(self, run: RunDirectory) -> None:
        """Bytes and speed, for plots of quality against them."""
        left = deployment_of(run.path, read_manifest(run.path))
        known = {name: value for name, value in vars(left).items() if value is not None}
        self.experiment.summary.update({f"deployed/{name}": v for name, v in known.items()})

    def _hand_over(self, run: RunDirectory) -> None:
        if not (run.checkpoints / "last.ckpt").exists():
            return
        parent = self._parent()
        model = self._artifact("model", run.best_checkpoint, parent)
        if (run.path / PACKED).is_dir():
            self._artifact(PACKED, run.path / PACKED, model)

    def _artifact(self, kind: str, path: Path, parent: str | None) -> str:
        """Log a file or directory; its name."""
        wandb: Any = importlib.import_module("wandb")
        name = f"{kind}-{self.experiment.id}"
        artifact = wandb.Artifact(name, type=kind, metadata={"path": str(path), "parent": parent})
        if path.is_dir():
            artifact.add_dir(str(path), policy="immutable")
        else:
            artifact.add_file(str(path), policy="immutable")  # where it lies, without a copy
        self.experiment.log_artifact(artifact)
        return name

    def _parent(self) -> str | None:
        """The artifact of the run that this one began with the weights of, if W&B has it."""
        model: Any = self.experiment.config.get("model") or {}
        pretrained = model.get("init_args", {}).get("pretrained")
        found = pretrained and _id_of(Path(pretrained))
        if not found:
            return None
        name = f"model-{found}"
        if not self.experiment.offline:
            self.experiment.use_artifact(f"{name}:latest")
        return name


def _id_of(path: Path) -> str | None:
    file = path / WANDB_ID
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def _new_id(path: Path) -> str:
    """Drawn beside the run's random generators; kept where the run has its directory already."""
    new = secrets.token_hex(4)
    if path.is_dir():
        with suppress(FileExistsError), (path / WANDB_ID).open("x", encoding="utf-8") as file:
            file.write(new)
    return _id_of(path) or new
