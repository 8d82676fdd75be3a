"""Checkpoint files: each whole or not there, and sealed by a checksum of every byte.

A file is a zip, as torch.save writes it, whose comment is the checksum: both are one file, so that
no kill comes between them, and torch.load and unzip read it as any other.
"""

import contextlib
import hashlib
import os
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

PART = ".part"
NO_COMMENT = b"\0\0"  # its length, which is what a zip ends with
MARK = struct.pack("<H", len("sha256:") + 64) + b"sha256:"
SEAL_BYTES = len(MARK) + 64
ZIP_END, ZIP_END_BYTES = b"PK\5\6", 22


def write_file(saved: dict[str, Any], file: Path) -> None:
    """Write beside the file, seal, see it safe on the disk, and only then put it in its place.

    Raises:
        OSError: the disk is full or fails; what was there before is untouched.
    """
    with part_of(file) as part, part.open("w+b") as out:
        stream: Any = _Hashed(out)
        try:
            torch.save(saved, stream)
        except RuntimeError as error:  # torch tells what came of a failed write
            raise stream.error or error from None
        _append_seal(out, stream.digest.hexdigest())


def seal(file: Path) -> None:
    """Give a file that torch.save has written its checksum."""
    with file.open("r+b") as out:
        _append_seal(out, hashlib.file_digest(out, "sha256").hexdigest())


def load_file(file: Path, *, mmap: bool = True) -> dict[str, Any]:
    """A checkpoint's plain data, once all its bytes are seen to be those that were written.

    Args:
        mmap: Leave weights on disk until they are read.

    Raises:
        ValueError: the file is damaged, or no checkpoint.
    """
    require_file_intact(file)
    try:
        saved: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{file} is no checkpoint that can be read, or was cut off; take another checkpoint"
        ) from error
    return saved


def require_file_intact(file: Path) -> None:
    """Refuse a file that has changed since it was sealed; one of torch.save's own has no seal.

    Raises:
        ValueError: naming the file and the mend.
    """
    with file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - SEAL_BYTES))
        end = opened.read()
        if end.startswith(MARK):
            opened.seek(0)
            digest = hashlib.sha256()
            for start in range(0, size - SEAL_BYTES, 1 << 20):
                digest.update(opened.read(min(1 << 20, size - SEAL_BYTES - start)))
            digest.update(NO_COMMENT)
            intact = end == MARK + digest.hexdigest().encode()
        else:
            intact = end[-ZIP_END_BYTES:].startswith(ZIP_END) and end.endswith(NO_COMMENT)
    if not intact:
        raise damaged(file)


def damaged(file: Path) -> ValueError:
    """The error of a file that is not as it was written."""
    return ValueError(
        f"{file} is damaged: its bytes are no longer those that were written, or it was cut "
        "off; go on from the one before it by `gpt4o-lit fit --resume RUN --resume_from previous`"
    )


class _Hashed:
    """What torch.save writes to: a file, hashed as it grows."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            written = self.file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.digest.update(data)
        return written

    def flush(self) -> None:
        self.file.flush()


def _append_seal(out: IO[bytes], checksum: str) -> None:
    out.seek(-len(NO_COMMENT), os.SEEK_END)
    out.write(MARK + checksum.encode())


@contextlib.contextmanager
def part_of(file: Path) -> Iterator[Path]:
    """A file beside it to write to, which takes its place when that went well, or goes."""
    part = file.with_name(file.name + PART)
    try:
        part.unlink(missing_ok=True)
        yield part
        synchronize(part)
        os.replace(part, file)
        synchronize(file.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def synchronize(path: Path) -> None:
    """Have the disk hold what was written."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
