"""Checkpoints in parts: a folder to which each process writes what it holds, safe as one file is.

The parts are safetensors by torch.distributed.checkpoint, which any number of processes reads what
it needs of. What is not in parts is one file beside them (PLAIN), sealed, which has the checksums
of the others; it is written last, into a folder that only then gets its name.
"""

import ctypes
import hashlib
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_map_with_path

from gpt4o_lit.interop.checkpoint_file import (
    PART,
    damaged,
    load_file,
    synchronize,
    write_file,
)

PLAIN = "plain.ckpt"
CHECKSUMS, SHARED = "checksums_of_parts", "shared_parts"


def split(checkpoint: dict[str, Any]) -> tuple[dict[str, Any], dict[str, DTensor]]:
    """The checkpoint with tensors on the meta device where parts were, and the parts by name.

    Of weights that are one, such as a tied head's, the first name has the parts; SHARED tells it.
    """
    parts: dict[str, DTensor] = {}
    names: dict[Any, str] = {}
    shared: dict[str, str] = {}

    def take(path: Any, leaf: Any) -> Any:
        if not isinstance(leaf, DTensor):
            return leaf
        name, local = _name(path), leaf.to_local()
        first = names.setdefault((local.untyped_storage()._cdata, local.storage_offset()), name)
        if first == name:
            parts[name] = leaf
        else:
            shared[name] = first
        return torch.empty(leaf.shape, dtype=leaf.dtype, device="meta")

    plain: dict[str, Any] = tree_map_with_path(take, checkpoint)
    return ({**plain, SHARED: shared} if parts else plain), parts


def write_folder(
    plain: dict[str, Any], parts: dict[str, DTensor], folder: Path, group: dist.ProcessGroup
) -> None:
    """Write each process's parts beside the folder, seal them, and give it its name.

    All processes of the group call this at once; the first one writes what is plain.

    Raises:
        OSError: on all of them, where the disk of one is full or fails; what was there before is
            untouched.
    """
    unfinished = folder.with_name(folder.name + PART)
    rank = dist.get_rank(group)
    try:
        writer = HuggingFaceStorageWriter(str(unfinished), save_distributed=True)
        save(dict(parts), storage_writer=writer, process_group=group)
        checksums = agreed(lambda: _checksums(unfinished, rank), group)
        together = {name: value for own in checksums for name, value in own.items()}

        def finish() -> None:
            if rank == 0:
                write_file({**plain, CHECKSUMS: together}, unfinished / PLAIN)
                if folder.exists() and _exchanged(unfinished, folder):
                    remove(unfinished)  # what was there before
                else:
                    remove(folder)
                    os.replace(unfinished, folder)
                synchronize(folder.parent)

        agreed(finish, group)
    except BaseException as failed:
        if rank == 0:
            shutil.rmtree(unfinished, ignore_errors=True)
        if not isinstance(failed, CheckpointException):
            raise
        errors = [error for error, _ in failed.failures.values()]
        raise next((each for each in errors if isinstance(each, OSError)), errors[0]) from None


def agreed(find: Callable[[], Any], group: dist.ProcessGroup) -> list[Any]:
    """What each process finds; where one fails by an OSError, that on all of them."""
    try:
        own = find()
    except OSError as error:
        own = error
    found: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, own, group=group)
    for each in found:
        if isinstance(each, OSError):
            raise each
    return found


def load_folder(folder: Path, *, parts: bool = True) -> dict[str, Any]:
    """A checkpoint's plain data with its weights whole, or without `parts` on the meta device.

    Raises:
        ValueError: a file of it is damaged or missing.
    """
    require_folder_intact(folder)
    plain = load_file(folder / PLAIN)
    del plain[CHECKSUMS]
    shared = plain.pop(SHARED)
    if not parts:
        return plain
    whole: dict[str, Tensor] = {}

    def make(path: Any, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_meta:
            return leaf
        name = _name(path)
        if name in shared:
            return whole[shared[name]]
        return whole.setdefault(name, torch.empty_like(leaf, device="cpu"))

    checkpoint: dict[str, Any] = tree_map_with_path(make, plain)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        load(whole, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    return checkpoint


def require_folder_intact(folder: Path) -> None:
    """Refuse a folder of which a file has changed or is gone since it was written.

    Raises:
        ValueError: naming the file and the mend.
    """
    if not (folder / PLAIN).is_file():
        raise ValueError(f"{folder} is no checkpoint: it has no {PLAIN}; take another checkpoint")
    for name, checksum in load_file(folder / PLAIN)[CHECKSUMS].items():
        file = folder / name
        if not file.is_file() or _checksum(file) != checksum:
            raise damaged(file)


def remove(path: Path) -> None:
    """Remove a checkpoint; one that is half removed has not its name any more."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    if not path.name.endswith(PART):
        path = path.rename(path.with_name(f"going_{path.name}{PART}"))
    shutil.rmtree(path)


def _exchanged(one: Path, other: Path) -> bool:
    """Swap two folders' names at once, as the kernel and its local file systems can."""
    if sys.platform != "linux":
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE: renameat2(2)
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    return rename is not None and not rename(here, bytes(one), here, bytes(other), exchange)


def _checksums(folder: Path, rank: int) -> dict[str, str]:
    """Of the files that this process has written; safe on the disk then."""
    checksums = {}
    for file in sorted(folder.glob(f"shard-{rank + 1:05d}-*")):
        synchronize(file)
        checksums[file.name] = _checksum(file)
    return checksums


def _checksum(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _name(path: Any) -> str:
    return ".".join(str(getattr(step, "key", getattr(step, "idx", step))) for step in path)
