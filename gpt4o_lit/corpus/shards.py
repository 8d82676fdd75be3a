"""One shard: a file that says itself what it holds, and that is there whole or not at all."""

import hashlib
import json
import os
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = b"gpt4oLT1"
ALIGN = 64
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """What a shard's header says."""

    job: str
    """Digest of the text, tokenizer and options that the shard was made from."""
    dtype: str
    num_tokens: int
    num_documents: int
    """Documents that start in this shard."""
    num_bytes: int
    """UTF-8 bytes of its text."""
    checksum: str
    """blake2b of tokens and document starts."""


def shard_name(split: str, index: int) -> str:
    """File name of the shard; sorted names are in order."""
    return f"{split}-{index:06d}.bin"


def write_shard(
    path: Path, job: str, tokens: list[Array], starts: Array, num_bytes: int
) -> ShardInfo:
    """Write beside the path, flush to the disk, then rename: no half shard ever has the name.

    `tokens` are in parts, of which there is at least one, so that nobody must join them.
    """
    starts = starts.astype(np.int64)
    info = ShardInfo(
        job=job,
        dtype=tokens[0].dtype.name,
        num_tokens=sum(map(len, tokens)),
        num_documents=len(starts),
        num_bytes=num_bytes,
        checksum=_checksum(*tokens, starts),
    )
    header = json.dumps(asdict(info)).encode()
    prefix = MAGIC + struct.pack("<I", len(header)) + header
    padding = b"\0" * (-len(prefix) % ALIGN)
    gap = b"\0" * (-sum(part.nbytes for part in tokens) % 8)
    write_whole(path, prefix, padding, *(part.data for part in tokens), gap, starts.data)
    return info


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Replace a file so that a kill at any moment leaves the old one or the new one."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as out:
        for data in parts:
            out.write(data)
        out.flush()
        os.fsync(out.fileno())
    part.replace(path)


class Shard:
    """A memory-mapped shard; its checksum is compared when its tokens are first read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.info, offset = _read_header(path)
        self._checked = False
        dtype = np.dtype(self.info.dtype)
        token_bytes = dtype.itemsize * self.info.num_tokens
        starts_at = offset + token_bytes + (-token_bytes % 8)
        size = starts_at + 8 * self.info.num_documents
        if path.stat().st_size != size:
            raise ValueError(
                f"shard {path} has {path.stat().st_size} bytes instead of {size}; "
                "delete it and prepare the corpus again"
            )
        data = np.memmap(path, dtype=np.uint8, mode="r")
        self._tokens = data[offset : offset + token_bytes].view(dtype)
        self._starts = data[starts_at:].view(np.int64)

    @property
    def tokens(self) -> Array:
        """All token ids of the shard (uint16 or uint32)."""
        if not self._checked:
            self.verify()
        return self._tokens

    @property
    def starts(self) -> Array:
        """int64: where in `tokens` each document that starts here starts.

        A split asks every shard for them at once, so only their order is checked here; the rest is
        with the tokens, without which they are of no use.
        """
        bounded = np.concatenate([[0], self._starts, [self.info.num_tokens]])
        if not self._checked and (bounded[1:] < bounded[:-1]).any():
            self.verify()
        return self._starts

    def verify(self) -> None:
        """ValueError unless the checksum is that of the header."""
        if _checksum(self._tokens, self._starts) != self.info.checksum:
            raise ValueError(
                f"shard {self.path} is damaged (its checksum differs); "
                "delete it and prepare the corpus again"
            )
        self._checked = True


def whole_shard(path: Path, job: str) -> ShardInfo | None:
    """What the shard holds, if it is there, whole, and made from this job."""
    try:
        shard = Shard(path)
        if shard.info.job != job:
            return None
        shard.verify()
    except (OSError, ValueError):
        return None
    return shard.info


def _read_header(path: Path) -> tuple[ShardInfo, int]:
    """The header and where the tokens start."""
    with path.open("rb") as stream:
        head = stream.read(len(MAGIC) + 4)
        if len(head) < len(MAGIC) + 4 or not head.startswith(MAGIC):
            raise ValueError(f"shard {path} has no header; delete it and prepare the corpus again")
        (length,) = struct.unpack("<I", head[len(MAGIC) :])
        header = stream.read(length)
    try:
        info = ShardInfo(**json.loads(header))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"shard {path} has a damaged header; delete it and prepare the corpus again"
        ) from error
    end = len(head) + length
    return info, end + (-end % ALIGN)


def _checksum(*parts: Any) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
