"""The directory of an ablation: its plan, its variants' configs, and a run directory for each."""

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from gpt4o_lit.experiments.grid import Grid
from gpt4o_lit.experiments.record import LOG, Record
from gpt4o_lit.experiments.resolve import Variant
from gpt4o_lit.experiments.run_files import ABLATION, LOADER
from gpt4o_lit.experiments.settings import difference
from gpt4o_lit.run_directory import RunDirectory

HOME = Path("runs") / "ablations"
CONFIG, LOCK = "variant.yaml", ".lock"
PATIENCE = 90.0
"""Seconds in which the runs of an ablation that was killed save and end."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A variant with a seed."""

    variant: str
    seed: int
    path: Path

    @property
    def told(self) -> str:
        """As a person says it."""
        return f"{self.variant} seed {self.seed}"

    @property
    def record(self) -> Record:
        """As its files tell it now."""
        return Record(self.path)

    def arguments(self, clears: bool = True) -> list[str]:
        """The command line that begins it, or goes on with it from its last checkpoint.

        Args:
            clears: Take away what a run left that was killed before its first checkpoint; of
                several processes one alone may.
        """
        if (self.path / "checkpoints" / "last.ckpt").exists():
            self.record.forget_error()
            return ["fit", "--resume", str(self.path)]
        for left in self.path.iterdir() if clears and self.path.is_dir() else ():
            if left.is_dir():
                shutil.rmtree(left)
            elif left.name != LOG:
                left.unlink()
        config = self.path.parent / CONFIG
        seed, place = ["--seed_everything", str(self.seed)], ["--run_dir", str(self.path)]
        return ["fit", "--config", str(config), *seed, *place]


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What is to be run, and where."""

    grid: Grid
    directory: Path
    variants: list[Variant]

    @property
    def runs(self) -> list[Run]:
        """All variants with the first seed, then with the next: the sooner can they be compared."""
        return [
            Run(variant=v.name, seed=seed, path=self.directory / v.name / f"seed_{seed}")
            for seed in self.grid.seeds
            for v in self.variants
        ]

    def require_unchanged(self) -> None:
        """See that runs which have begun are of the variants as they are now.

        Raises:
            ValueError: the grid, or a config that it names, has been changed since.
        """
        for variant in self.variants:
            folder = self.directory / variant.name
            begun = [path for path in folder.glob("seed_*") if RunDirectory(path).config.is_file()]
            file = folder / CONFIG
            if not begun or not file.is_file():
                continue
            was = yaml.load(file.read_text(encoding="utf-8"), LOADER)
            changed = difference(was, variant.config)
            if changed:
                key, (before, now) = next(iter(changed.items()))
                raise ValueError(
                    f"{folder} has runs with {key} {before}, which is {now} now; remove it to run "
                    f"{variant.name} again, or choose another --dir"
                )

    def require_idle(self) -> None:
        """See that no job of a cluster runs what is to be run here.

        Raises:
            ValueError: one does.
        """
        for run in self.runs:
            if run.record.status == "running":
                process = run.record.manifest["process"]
                raise ValueError(
                    f"{run.path} is run by process {process['id']} on {process['host']}; wait for "
                    "it, or go on with the --cluster that it was submitted by"
                )

    def write(self) -> None:
        """The plan and the variants' configs; runs come later."""
        for variant in self.variants:
            folder = self.directory / variant.name
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder / CONFIG, variant.text)
        changes = {variant.name: variant.changes for variant in self.variants}
        runs = [
            {
                "variant": run.variant,
                "seed": run.seed,
                "directory": str(run.path.relative_to(self.directory)),
                "changes": changes[run.variant],
            }
            for run in self.runs
        ]
        grid = self.grid
        plan = {"name": grid.name, "metric": grid.metric, "mode": grid.mode}
        plan |= {"base": grid.compare_to}
        _write(self.directory / ABLATION, json.dumps({**plan, "runs": runs}, indent=1) + "\n")


@contextlib.contextmanager
def locked(
    directory: Path, told: Callable[[str], None], patience: float = PATIENCE
) -> Iterator[None]:
    """Keep others out of a directory, until all that was forked meanwhile has ended too.

    Raises:
        ValueError: another process runs it.
    """
    file = _lock(directory, told, patience)
    try:
        yield
    finally:
        os.close(file)


def _lock(directory: Path, told: Callable[[str], None], patience: float) -> int:
    directory.mkdir(parents=True, exist_ok=True)
    file = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    deadline, waits = time.monotonic() + patience, False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(file)
                raise ValueError(
                    f"{directory} is run by another process; wait for it, or choose another --dir"
                ) from None
        if not waits:
            told(f"waiting for runs in {directory} that are about to end")
            waits = True
        time.sleep(0.05)


def _write(file: Path, text: str) -> None:
    part = file.with_name(file.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, file)
