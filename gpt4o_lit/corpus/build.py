"""Cut the stream of pieces into shards and have those made that are not there yet."""

import hashlib
import os
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt4o_lit.corpus.config import CorpusConfig
from gpt4o_lit.corpus.corpus import SPLITS
from gpt4o_lit.corpus.encode import Job, last_sign
from gpt4o_lit.corpus.pool import Pool
from gpt4o_lit.corpus.route import Piece
from gpt4o_lit.corpus.shards import ShardInfo, shard_name, whole_shard

SMALLEST_SHARD, LARGEST_SHARD = 1 << 19, 4 << 20
# Measured: what a worker takes with its shard; and what all may, so that a build with its reader
# never takes more than 1 GB.
WORKER_MEMORY, WORKERS_MEMORY = 58_000_000, 700_000_000


def shard_bytes(source_bytes: int) -> int:
    """Text per shard: about 64 shards, of a size that keeps both files and memory few."""
    return min(LARGEST_SHARD, max(SMALLEST_SHARD, source_bytes // 64))


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_processes() -> int:
    """Worker processes where nobody says how many, within the memory for them.

    One more than there are cores: while one waits for its text to come through the pipe, the others
    keep all cores at work (measured on two: 5% faster).
    """
    return min(num_cores() + 1, WORKERS_MEMORY // WORKER_MEMORY)


@dataclass
class _Draft:
    """The shard of one split that is being filled."""

    index: int
    digest: Any
    before: str
    text: bytearray = field(default_factory=bytearray)
    sizes: "array[int]" = field(default_factory=lambda: array("I"))
    opens: bytearray = field(default_factory=bytearray)
    closes: bytearray = field(default_factory=bytearray)


class Builder:
    """Where shards start and end depends on the pieces alone, never on workers or kills."""

    def __init__(self, folder: Path, config: CorpusConfig, fingerprint: str, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self.config = config
        self.infos: dict[str, ShardInfo] = {}
        self.num_documents = dict.fromkeys(SPLITS, 0)
        self.num_built = 0
        self._seed = f"{fingerprint} bos={config.add_bos} eos={config.add_eos}".encode()
        self._drafts = {split: self._draft(0) for split in SPLITS}

    def run(self, pieces: Iterable[Piece], num_workers: int) -> None:
        """Make every shard of the pieces that is not there whole."""
        with Pool(self.folder.parent / "tokenizer", num_workers, self._built) as pool:
            for piece in pieces:
                self._add(piece, pool.submit)
            for split in SPLITS:
                self._emit(split, pool.submit)

    def checksums(self) -> dict[str, list[str]]:
        """The checksum of each shard of each split, in order."""
        numbers = {split: range(self._drafts[split].index) for split in SPLITS}
        return {
            split: [self.infos[shard_name(split, k)].checksum for k in numbers[split]]
            for split in SPLITS
        }

    def counts(self) -> dict[str, dict[str, int]]:
        """Documents, bytes and tokens of each split."""
        totals = {}
        for split in SPLITS:
            infos = [info for name, info in self.infos.items() if name.startswith(f"{split}-")]
            totals[split] = {
                "documents": sum(info.num_documents for info in infos),
                "bytes": sum(info.num_bytes for info in infos),
                "tokens": sum(info.num_tokens for info in infos),
            }
        return totals

    def _draft(self, index: int, before: str = "") -> _Draft:
        return _Draft(index, hashlib.blake2b(self._seed, digest_size=16), before)

    def _add(self, piece: Piece, submit: Callable[[Job], None]) -> None:
        draft = self._drafts[piece.split]
        size = len(piece.text)
        draft.digest.update(b"%b%d,%d,%d;" % (piece.digest, size, piece.opens, piece.closes))
        draft.text += piece.text
        draft.sizes.append(size)
        draft.opens.append(piece.opens)
        draft.closes.append(piece.closes)
        if len(draft.text) >= self.limit:
            self._emit(piece.split, submit)

    def _emit(self, split: str, submit: Callable[[Job], None]) -> None:
        draft = self._drafts[split]
        if not draft.text:
            return
        self._drafts[split] = self._draft(draft.index + 1, last_sign(draft.text, len(draft.text)))
        name = shard_name(split, draft.index)
        digest = draft.digest.hexdigest()
        if info := whole_shard(self.folder / name, digest):
            self.infos[name] = info
            return
        submit(
            Job(
                path=str(self.folder / name),
                digest=digest,
                text=draft.text,
                sizes=draft.sizes,
                opens=draft.opens,
                closes=draft.closes,
                before=draft.before,
                add_bos=self.config.add_bos,
                add_eos=self.config.add_eos,
            )
        )

    def _built(self, path: str, info: ShardInfo) -> None:
        self.infos[Path(path).name] = info
        self.num_built += 1
