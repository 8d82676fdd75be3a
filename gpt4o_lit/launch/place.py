"""The directory of a launch's run: made once, and found again by whoever restarts it."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gpt4o_lit.launch.launch import Launch
from gpt4o_lit.run_directory import RunDirectory

MARK = "launch.json"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the processes of a launch work, and from what they go on."""

    run: str
    checkpoint: str | None
    processes: int
    """With how many the run began: what a batch of all of them is."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What a launch leaves in the directory of its run, so that a restart finds it there."""

    launch: str
    arguments: list[str]
    processes: int
    finished: bool = False

    @classmethod
    def of(cls, run: Path) -> "Mark | None":
        """That of a run, if a launch has begun it."""
        path = run / MARK
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def leave(self, run: Path) -> None:
        """Write it there, whole or not at all."""
        part = run / f"{MARK}.part"
        part.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        os.replace(part, run / MARK)


def take_place(
    launch: Launch, run: Path, arguments: list[str], restarts: int, ours: bool = False
) -> Place:
    """The directory of a fit for its launch, made or found again; only the first process does this.

    Where the launch has saved something it goes on from there, else it begins anew.

    Args:
        restarts: The most that any process knows of.
        ours: Whoever started the launch made the directory for it, and may write a log there.

    Raises:
        ValueError: it is another launch's, or of one that has ended.
        FileExistsError: something else is in it.
    """
    mark, last = Mark.of(run), run / "checkpoints" / "last.ckpt"
    if mark is None or mark.launch != launch.name:
        if not ours:
            RunDirectory.fresh("", str(run))
    elif last.exists() and mark.arguments != arguments:
        raise ValueError(
            f"{run} is of another command of this launch (its {MARK} has it); give this one a "
            f"--run_dir of its own, or go on with that run by --resume {run}"
        )
    elif mark.finished and not restarts:
        raise ValueError(
            f"{run} is of a launch of the same name that has ended; give this one another "
            f"--rdzv-id or --run_dir, or go on with that run by --resume {run}"
        )
    if mark is not None and last.exists():
        print(f"{launch.name}: going on in {run}", flush=True)
        return Place(run=str(run), checkpoint=str(last), processes=mark.processes)
    for left in ("config.yaml", "metrics.csv", "samples.md"):  # of a start that saved nothing
        (run / left).unlink(missing_ok=True)
    Mark(launch=launch.name, arguments=arguments, processes=launch.world_size).leave(run)
    return Place(run=str(run), checkpoint=None, processes=launch.world_size)


def take_folder(launch: Launch, folder: Path, restarts: int) -> Place:
    """The directory for what another verb finds out; a restart writes there again."""
    if not restarts:
        RunDirectory.fresh("", str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    return Place(run=str(folder), checkpoint=None, processes=launch.world_size)


def keep_place(launch: Launch, run: Path, arguments: list[str], checkpoint: str) -> Place:
    """That of `fit --resume RUN`, which a restart too goes on with, from what it has saved."""
    mark = Mark.of(run)
    processes = mark.processes if mark else launch.world_size
    again = mark is not None and mark.launch == launch.name and mark.arguments == arguments
    if not again:
        Mark(launch=launch.name, arguments=arguments, processes=processes).leave(run)
    saved = str(RunDirectory(run).last_checkpoint) if again else checkpoint
    return Place(run=str(run), checkpoint=saved, processes=processes)


def finish(run: Path) -> None:
    """Note that the launch has done all it should."""
    mark = Mark.of(run)
    if mark is not None:
        replace(mark, finished=True).leave(run)
