"""How Lightning writes and reads the checkpoint files of a run."""

import errno
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import CheckpointIO
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from gpt4o_lit.interop.checkpoint_file import (
    PART,
    give_name,
    kept_steps,
    load_checkpoint,
    write_checkpoint,
)


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
    """

    def __init__(self) -> None:
        self.asynchronous = False
        """Copy to memory, and write while training goes on; one at a time."""
        self._writer = ThreadPoolExecutor(max_workers=1)
        self._under_way: Future[None] | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write, or begin to."""
        file = Path(path)
        if not isinstance(storage_options, Keeping):
            _write(checkpoint, file)
            return
        assert self._under_way is None, "the one before must be waited for"
        if self.asynchronous:
            checkpoint = copied(checkpoint)
        self._under_way = self._writer.submit(_write_and_tidy, checkpoint, file, storage_options)
        if not self.asynchronous:
            self._under_way.exception()

    def wait(self) -> str | None:
        """Let what was begun end; why it failed, if it did."""
        under_way, self._under_way = self._under_way, None
        error = under_way.exception() if under_way else None
        if error is not None and not isinstance(error, OSError):
            raise error
        return None if error is None else str(error)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """What is in the file, in memory; never unpickled, whatever is asked."""
        return load_checkpoint(Path(path), mmap=False)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the file."""
        Path(path).unlink(missing_ok=True)

    def teardown(self) -> None:
        """Let what was begun end."""
        if self._under_way is not None:
            self._under_way.exception()


def copied(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The same with tensors of its own in memory; those that share theirs still do."""
    storages: dict[int, Any] = {}

    def copy(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in storages:
            storages[storage._cdata] = torch.UntypedStorage(storage.nbytes()).copy_(storage)
        own = torch.empty(0, dtype=tensor.dtype)
        place = tensor.storage_offset(), tensor.size(), tensor.stride()
        return own.set_(storages[storage._cdata], *place)

    return tree_map_only(Tensor, copy, checkpoint)


def _write(checkpoint: dict[str, Any], file: Path) -> None:
    """Write where there is room.

    Raises:
        OSError: there is none, or the disk fails.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = (leaf for leaf in tree_leaves(checkpoint) if isinstance(leaf, Tensor))
    storages = {each._cdata: each.nbytes() for each in (t.untyped_storage() for t in tensors)}
    needed, free = sum(storages.values()), shutil.disk_usage(file.parent).free
    if needed > free:
        reason = f"{needed / 1e6:,.1f} MB are needed and {free / 1e6:,.1f} MB are free"
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {reason}", str(file))
    write_checkpoint(checkpoint, file)


def _write_and_tidy(checkpoint: dict[str, Any], file: Path, keeping: Keeping) -> None:
    """Write the checkpoint of a step, then name it, and remove what is not kept.

    `last.ckpt` comes to stand for it last of all: whoever is killed before goes on from the one
    before, and does all this again. Steps behind this one are of a run that went back.
    """
    folder = file.parent
    for left in folder.glob(f"*{PART}"):
        left.unlink()
    _write(checkpoint, file)
    if keeping.config.is_file():
        give_name(keeping.config, folder / "config.yaml")
    best = [path for path in keeping.best if path.is_file()]
    if best:
        give_name(best[0], folder / "best.ckpt")
    give_name(file, folder / "last.ckpt")
    steps = kept_steps(folder)
    newest = [path for step, path in steps.items() if step <= keeping.step][: keeping.last]
    for path in steps.values():
        if path not in newest and path not in best:
            path.unlink()
