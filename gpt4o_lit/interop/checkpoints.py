"""The checkpoints of a run, each a file, or a folder of parts: names, and what is in them."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

from gpt4o_lit.interop.checkpoint_file import load_file, part_of, require_file_intact
from gpt4o_lit.interop.checkpoint_folder import load_folder, require_folder_intact
from gpt4o_lit.run_directory import kept_steps

NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def load_checkpoint(path: Path, *, mmap: bool = True, parts: bool = True) -> dict[str, Any]:
    """A checkpoint's plain data, once all its bytes are seen to be those that were written.

    Args:
        mmap: Leave the weights of a file on disk until they are read.
        parts: Read the weights of a folder too; else they are on the meta device.

    Raises:
        ValueError: it is damaged, or no checkpoint.
    """
    return load_folder(path, parts=parts) if path.is_dir() else load_file(path, mmap=mmap)


def require_intact(path: Path) -> None:
    """Refuse a checkpoint that has changed since it was written.

    Raises:
        ValueError: naming the file and the mend.
    """
    (require_folder_intact if path.is_dir() else require_file_intact)(path)


def give_name(file: Path, name: Path) -> None:
    """Let `name` stand for a file at once, in place of what it stood for."""
    if name.exists() and name.samefile(file):
        return
    with part_of(name) as part:
        if file.is_dir():
            part.symlink_to(file.name)
            return
        try:
            os.link(file, part)
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            shutil.copyfile(file, part)


def step_file(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step_{step}.ckpt"


def newest_before(last: Path) -> tuple[Path, list[Path]]:
    """The newest intact checkpoint that is not the one that `last` stands for, and damaged ones
    that were passed over.

    Raises:
        FileNotFoundError: there is none.
    """
    damaged = []
    for file in kept_steps(last.parent).values():
        if last.exists() and last.samefile(file):
            continue
        try:
            require_intact(file)
        except ValueError:
            damaged.append(file)
            continue
        return file, damaged
    raise FileNotFoundError(
        f"{last.parent} has no intact checkpoint before last.ckpt; begin anew with the run's "
        "config.yaml, and keep more by checkpoint.keep_last"
    )
