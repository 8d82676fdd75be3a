"""Turn the text of one shard into tokens; runs in the worker processes."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt4o_lit.corpus.shards import ShardInfo, write_shard
from gpt4o_lit.tokenizer import Tokenizer

# Long texts are encoded in units of at most UNIT bytes that end behind a line: faster, since they
# stay in the cache. A constant, because where a text is cut decides its tokens.
UNIT = 1 << 15
# Ids come from the tokenizer at up to 36 bytes each, so few units are encoded at a time.
BATCH = 1 << 18
OPENS, CLOSES = 1, 2
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """All that one shard is made from."""

    path: str
    digest: str
    text: bytes | bytearray
    """Documents, and the pieces of long ones that fell into this shard, in a row."""
    sizes: "array[int]"
    """Bytes of each of these texts."""
    opens: bytes | bytearray
    """1 for each text that opens a document, else 0."""
    closes: bytes | bytearray
    """1 for each text that closes a document, else 0."""
    before: str
    """The sign in front of the first text, where that does not open a document."""
    add_bos: bool
    add_eos: bool


@dataclass(slots=True)
class _Batch:
    """Units of text, as many as are encoded at a time."""

    units: list[str]
    befores: list[str]
    """The sign in front of each unit that goes on a document; else the empty string."""
    flags: bytearray
    """OPENS and CLOSES a document, for each unit."""


def run_job(job: Job, tokenizer: Tokenizer) -> ShardInfo:
    """Encode the text, straight to the type in which it is stored, and write the shard."""
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    tokens: list[Array] = []
    starts: list[Array] = []
    num_tokens = 0
    for batch in _batches(job):
        flags = np.frombuffer(batch.flags, dtype=np.uint8)
        opens, closes = flags & OPENS > 0, flags & CLOSES > 0
        flat, lengths = tokenizer.encode_flat(batch.units, batch.befores)
        ids, begins = _surround(flat, lengths, opens & job.add_bos, closes & job.add_eos, tokenizer)
        tokens.append(ids.astype(dtype))
        starts.append(begins[opens] + num_tokens)
        num_tokens += len(ids)
    return write_shard(Path(job.path), job.digest, tokens, np.concatenate(starts), len(job.text))


def encode_text(text: bytes, before: str, tokenizer: Tokenizer) -> Array:
    """The ids of one text, `before` being the sign in front of it where it goes on a document."""
    bounds = list(unit_bounds(text, 0, len(text)))
    units = [text[start:stop].decode() for start, stop in bounds]
    befores = [before, *(last_sign(text, start) for start, _ in bounds[1:])]
    return tokenizer.encode_flat(units, befores)[0]


def _surround(
    flat: Array, lengths: Array, bos: Array, eos: Array, tokenizer: Tokenizer
) -> tuple[Array, Array]:
    """The tokens of units with bos and eos put around some, and where each unit begins.

    `bos` and `eos` are bool (units,).
    """
    totals = lengths + bos + eos
    ends = np.cumsum(totals)
    begins = ends - totals
    tokens = np.empty(int(totals.sum()), dtype=np.int32)
    is_text = np.ones(len(tokens), dtype=bool)
    is_text[begins[bos]] = is_text[ends[eos] - 1] = False
    tokens[is_text] = flat
    tokens[begins[bos]] = tokenizer.bos_id
    tokens[ends[eos] - 1] = tokenizer.eos_id
    return tokens, begins


def _batches(job: Job) -> Iterator[_Batch]:
    text, begin, size = job.text, 0, 0
    batch = _Batch([], [], bytearray())
    for length, opens, closes in zip(job.sizes, job.opens, job.closes, strict=True):
        end = begin + length
        for start, stop in unit_bounds(text, begin, end):
            is_first = bool(opens) and start == begin
            batch.units.append(text[start:stop].decode())
            batch.befores.append("" if is_first else last_sign(text, start) or job.before)
            batch.flags.append(OPENS * is_first | CLOSES * (bool(closes) and stop == end))
            size += stop - start
            if size >= BATCH:
                yield batch
                batch, size = _Batch([], [], bytearray()), 0
        begin = end
    if batch.units:
        yield batch


def unit_bounds(
    text: bytes | bytearray, start: int, end: int, limit: int = UNIT
) -> Iterator[tuple[int, int]]:
    """Where to cut start .. end into units of at most `limit` bytes, each cut behind a line end, or
    else before a sign."""
    while end - start > limit:
        stop = text.rfind(b"\n", start, start + limit) + 1
        if stop <= start:
            stop = start + limit
            while text[stop] & 0xC0 == 0x80:
                stop -= 1
        yield start, stop
        start = stop
    yield start, end


def last_sign(text: bytes | bytearray, end: int) -> str:
    """The sign that ends at `end`; the empty string at 0."""
    return text[max(0, end - 4) : end].decode(errors="ignore")[-1:]
