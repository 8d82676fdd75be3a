"""Read a prepared corpus: memory-mapped tokens, cut into windows."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np

from gpt4o_lit.corpus.folder import MANIFEST, SHARDS, TOKENIZER
from gpt4o_lit.corpus.shards import Shard, shard_name
from gpt4o_lit.tokenizer import Tokenizer, load_tokenizer

SPLITS = ("train", "valid", "test")
Array = np.ndarray[Any, Any]


class Split:
    """One split's tokens in a row, `bos? text eos?` for each document."""

    def __init__(self, name: str, shards: list[Shard]) -> None:
        self.name = name
        self.shards = shards
        counts = [shard.info.num_tokens for shard in shards]
        self._offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self.num_tokens = int(self._offsets[-1])
        self.num_documents = sum(shard.info.num_documents for shard in shards)
        self.num_bytes = sum(shard.info.num_bytes for shard in shards)

    def num_windows(self, seq_len: int) -> int:
        """Windows of seq_len targets; the rest at the end, less than a window, is left out."""
        return max(0, (self.num_tokens - 1) // seq_len)

    @cached_property
    def document_starts(self) -> Array:
        """int64 (num_documents,): where each document starts among the split's tokens."""
        own = [
            shard.starts + int(at) for shard, at in zip(self.shards, self._offsets, strict=False)
        ]
        return np.concatenate(own) if own else np.empty(0, dtype=np.int64)

    def tokens(self, start: int, stop: int) -> Array:
        """int64: the tokens start .. stop of the split."""
        out = np.empty(stop - start, dtype=np.int64)
        self._copy(out, start)
        return out

    def windows(self, indices: Array, seq_len: int) -> tuple[Array, Array]:
        """Tokens int64 (B, seq_len + 1) and documents int32 (B, seq_len + 1) of the windows.

        Window i covers the tokens i * seq_len .. (i + 1) * seq_len, both included, so that each
        token but the first is a target once. Documents count from 0 in each window.
        """
        indices = np.asarray(indices, dtype=np.int64)
        limit = self.num_windows(seq_len)
        if indices.size and not 0 <= indices.min() <= indices.max() < limit:
            raise ValueError(
                f"window indices must be in 0..{limit - 1} (split {self.name} has "
                f"{self.num_tokens} tokens, seq_len is {seq_len}); give more text"
            )
        firsts = indices * seq_len
        tokens_BT1 = np.empty((len(firsts), seq_len + 1), dtype=np.int64)
        for row_T1, first in zip(tokens_BT1, firsts.tolist(), strict=True):
            self._copy(row_T1, first)
        return tokens_BT1, self._documents(firsts, seq_len)

    def _copy(self, out: Array, start: int) -> None:
        """Fill `out` with the tokens from `start` on, across shards."""
        at = int(np.searchsorted(self._offsets, start, side="right")) - 1
        filled = 0
        while filled < len(out):
            local = start + filled - int(self._offsets[at])
            part = self.shards[at].tokens[local : local + len(out) - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)
            at += 1

    def _documents(self, firsts: Array, seq_len: int) -> Array:
        """Mark the starts that lie inside each window, then count them up."""
        low = np.searchsorted(self.document_starts, firsts, side="right")
        high = np.searchsorted(self.document_starts, firsts + seq_len, side="right")
        counts = high - low
        rows = np.repeat(np.arange(len(firsts)), counts)
        nth = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        columns = self.document_starts[low[rows] + nth] - firsts[rows]
        marks = np.zeros((len(firsts), seq_len + 1), dtype=np.int32)
        marks[rows, columns] = 1
        return np.cumsum(marks, axis=1, dtype=np.int32)


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus in a folder; `changes` and `shards_built` tell what `prepare` had to do."""

    directory: Path
    manifest: dict[str, Any]
    changes: tuple[str, ...] = ()
    shards_built: int = 0

    @classmethod
    def open(
        cls,
        directory: Path | str,
        changes: tuple[str, ...] = (),
        shards_built: int = 0,
        *,
        expected: str | None = None,
    ) -> Self:
        """Open what `prepare` made; `expected` is the `identity` of what the caller prepared.

        Noticed here are short shards, another tokenizer and another corpus than the expected one;
        damaged shards on first use.
        """
        folder = Path(directory)
        if not (folder / MANIFEST).is_file():
            raise FileNotFoundError(f"{folder} holds no finished corpus; prepare it first")
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        corpus = cls(folder, manifest, changes, shards_built)
        if expected is not None and corpus.identity != expected:
            raise ValueError(
                f"{folder} holds another corpus ({corpus.identity}) than was prepared here "
                f"({expected}): another run built it anew; give each config its own directory"
            )
        corpus._check_tokenizer()
        for name in SPLITS:
            corpus.split(name)
        return corpus

    @cached_property
    def identity(self) -> str:
        """Checksum of the tokenizer and all shards: equal where every token is equal."""
        parts = {key: self.manifest[key] for key in ("format", "fingerprint", "shards")}
        data = json.dumps(parts, sort_keys=True).encode()
        return hashlib.blake2b(data, digest_size=16).hexdigest()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the corpus was encoded with."""
        return load_tokenizer(self.directory / TOKENIZER)

    def _check_tokenizer(self) -> None:
        try:
            found = load_tokenizer(self.directory / TOKENIZER).fingerprint
        except (OSError, ValueError) as error:
            found = str(error)
        if found != self.manifest["fingerprint"]:
            raise ValueError(
                f"tokenizer {self.directory / TOKENIZER} is not the one that encoded the corpus "
                f"({found}); prepare the corpus again"
            )

    @cached_property
    def _splits(self) -> dict[str, Split]:
        return {}

    def split(self, name: str) -> Split:
        """`train`, `valid` or `test`; one without text has no tokens."""
        if name not in SPLITS:
            raise ValueError(f"split ({name}) must be one of {', '.join(SPLITS)}")
        if name not in self._splits:
            listed = self.manifest["shards"][name]
            shards = []
            for index, checksum in enumerate(listed):
                shard = Shard(self.directory / SHARDS / shard_name(name, index))
                if shard.info.checksum != checksum:
                    raise ValueError(
                        f"shard {shard.path} is not the one that the manifest names; "
                        "delete it and prepare the corpus again"
                    )
                shards.append(shard)
            self._splits[name] = Split(name, shards)
        return self._splits[name]

    def texts(self, name: str) -> Iterator[str]:
        """The documents of a split as its pieces say them, without marks."""
        split = self.split(name)
        ends = [*split.document_starts.tolist(), split.num_tokens]
        for start, stop in pairwise(ends):
            yield self.tokenizer.decode(split.tokens(start, stop).tolist())

    def verify(self) -> None:
        """Compare the checksums of the tokenizer and every shard; ValueError names what differs."""
        self._check_tokenizer()
        for name in SPLITS:
            for shard in self.split(name).shards:
                shard.verify()
