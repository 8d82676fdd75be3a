"""How Lightning writes and reads the checkpoint files of a run."""

import errno
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lightning.fabric.plugins.io import CheckpointIO
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves

from gpt4o_lit.callbacks.snapshot import Snapshot
from gpt4o_lit.interop.checkpoint_file import PART, write_file
from gpt4o_lit.interop.checkpoint_folder import agreed, remove, split, write_folder
from gpt4o_lit.interop.checkpoints import give_name, load_checkpoint
from gpt4o_lit.run_directory import kept_steps


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """What stands beside the checkpoint of a step once that is written."""

    step: int
    last: int
    """How many of the newest steps are kept."""
    best: list[Path]
    """What else is kept, the best first, which gets the name best.ckpt."""
    config: Path
    """The run's config, kept beside them."""


class CheckpointFiles(CheckpointIO):
    """Writes each checkpoint whole or not at all, sealed; names and removes others after that.

    A checkpoint that comes with a `Keeping` as its storage_options is begun, and `wait` tells how
    that ended: an error of the disk is no reason to stop a run. Other ones are written at once.

    One with weights in parts (DTensor) all processes save at once: it becomes a folder.
    """

    def __init__(self) -> None:
        self.asynchronous = False
        """Copy to memory, and write while training goes on; one at a time."""
        self._snapshot = Snapshot()
        self._writer = ThreadPoolExecutor(max_workers=1)
        self._under_way: Future[None] | None = None
        self._made_room: Future[None] = Future()
        self._made_room.set_result(None)
        self._group: dist.ProcessGroup | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write, or begin to."""
        keeping = storage_options if isinstance(storage_options, Keeping) else None
        if self.asynchronous and keeping:
            self._made_room.result()
            checkpoint = self._snapshot.of(checkpoint)
        plain, parts = split(checkpoint)
        if parts and self._group is None:  # of its own, for the writer's thread talks by it
            self._group = dist.new_group(backend="gloo")
        group = self._group if parts else None
        writing = self._writer.submit(_write, plain, parts, Path(path), group, keeping)
        if keeping is None:
            return writing.result()
        assert self._under_way is None, "the one before must be waited for"
        self._under_way = writing
        if not self.asynchronous:
            writing.exception()

    def make_room(self, state: Any) -> None:
        """Get memory to copy a state into while training goes on, so that no save waits for it."""
        self._made_room = self._writer.submit(self._snapshot.make_room, state)

    def wait(self) -> str | None:
        """Let what was begun end; why it failed, if it did."""
        under_way, self._under_way = self._under_way, None
        error = under_way.exception() if under_way else None
        if error is not None and not isinstance(error, OSError):
            raise error
        return None if error is None else str(error)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """What was saved, in memory; never unpickled, whatever is asked.

        With "meta" as `map_location` parts are left in their folder, for whoever wants some alone.
        """
        return load_checkpoint(Path(path), mmap=False, parts=map_location != "meta")

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove it."""
        remove(Path(path))

    def teardown(self) -> None:
        """Let what was begun end."""
        if self._under_way is not None:
            self._under_way.exception()


def _write(
    plain: dict[str, Any],
    parts: dict[str, DTensor],
    path: Path,
    group: dist.ProcessGroup | None,
    keeping: Keeping | None,
) -> None:
    """Write where there is room, and put in order what lies beside it.

    Raises:
        OSError: there is no room, or the disk fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    is_first = group is None or dist.get_rank(group) == 0

    def prepare() -> None:
        if is_first:
            for left in path.parent.glob(f"*{PART}") if keeping else []:
                remove(left)
            _require_room(plain, path)

    if group is None:
        prepare()
        write_file(plain, path)
    else:
        agreed(prepare, group)
        write_folder(plain, parts, path, group)
    if keeping and is_first:
        _tidy(path, keeping)


def _require_room(plain: dict[str, Any], path: Path) -> None:
    """Weights in parts count too: the meta device has no memory, but tells how much they are."""
    tensors = (leaf for leaf in tree_leaves(plain) if isinstance(leaf, Tensor))
    storages = {each._cdata: each.nbytes() for each in (t.untyped_storage() for t in tensors)}
    needed, free = sum(storages.values()), shutil.disk_usage(path.parent).free
    if needed > free:
        reason = f"{needed / 1e6:,.1f} MB are needed and {free / 1e6:,.1f} MB are free"
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {reason}", str(path))


def _tidy(path: Path, keeping: Keeping) -> None:
    """Name the checkpoint of a step that was written, and remove what is not kept.

    `last.ckpt` comes to stand for it last of all: whoever is killed before goes on from the one
    before, and does all this again. Steps behind this one are of a run that went back.
    """
    folder = path.parent
    if keeping.config.is_file():
        give_name(keeping.config, folder / "config.yaml")
    best = [each for each in keeping.best if each.exists()]
    if best:
        give_name(best[0], folder / "best.ckpt")
    give_name(path, folder / "last.ckpt")
    steps = kept_steps(folder)
    newest = [each for step, each in steps.items() if step <= keeping.step][: keeping.last]
    for each in steps.values():
        if each not in newest and each not in best:
            remove(each)
