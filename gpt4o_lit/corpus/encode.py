"""Turn the text of one shard into tokens; runs in the worker processes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt4o_lit.corpus.shards import ShardInfo, write_shard
from gpt4o_lit.tokenizer import Tokenizer

# Long texts are encoded in units of at most UNIT bytes that end behind a line: faster, since they
# stay in the cache. A constant, because where a text is cut decides its tokens.
UNIT = 1 << 15
BATCH = 1 << 20
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """A document, or the piece of one that fell into this shard."""

    text: bytes
    opens: bool
    closes: bool


@dataclass(frozen=True, slots=True)
class Job:
    """All that one shard is made from."""

    path: str
    digest: str
    parts: list[Part]
    add_bos: bool
    add_eos: bool


def run_job(job: Job, tokenizer: Tokenizer) -> ShardInfo:
    """Encode the parts and write the shard."""
    tokens, starts = encode_parts(job.parts, tokenizer, job.add_bos, job.add_eos)
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    num_bytes = sum(len(part.text) for part in job.parts)
    return write_shard(Path(job.path), job.digest, tokens.astype(dtype), starts, num_bytes)


def encode_parts(
    parts: list[Part], tokenizer: Tokenizer, add_bos: bool, add_eos: bool
) -> tuple[Array, Array]:
    """Tokens with bos before and eos behind each document, and where documents start."""
    flat, lengths = _encode_texts([part.text for part in parts], tokenizer)
    opens = np.array([part.opens for part in parts], dtype=bool)
    bos = opens & add_bos
    eos = np.array([part.closes for part in parts], dtype=bool) & add_eos
    totals = lengths + bos + eos
    ends = np.cumsum(totals)
    begins = ends - totals
    tokens = np.empty(int(totals.sum()), dtype=np.int32)
    shift = begins + bos - (np.cumsum(lengths) - lengths)
    tokens[np.arange(len(flat)) + np.repeat(shift, lengths)] = flat
    tokens[begins[bos]] = tokenizer.bos_id
    tokens[ends[eos] - 1] = tokenizer.eos_id
    return tokens, begins[opens]


def _encode_texts(texts: list[bytes], tokenizer: Tokenizer) -> tuple[Array, Array]:
    """All ids in a row, and the number of ids of each text; encoded a batch at a time."""
    flats: list[Array] = []
    lengths = np.zeros(len(texts), dtype=np.int64)
    units: list[str] = []
    owners: list[int] = []
    size = 0
    for index, text in enumerate(texts):
        for unit in cut_units(text):
            units.append(unit.decode())
            owners.append(index)
            size += len(unit)
            if size >= BATCH:
                _encode_batch(units, owners, tokenizer, flats, lengths)
                units, owners, size = [], [], 0
    if units:
        _encode_batch(units, owners, tokenizer, flats, lengths)
    return (np.concatenate(flats) if flats else np.empty(0, dtype=np.int32)), lengths


def _encode_batch(
    units: list[str], owners: list[int], tokenizer: Tokenizer, flats: list[Array], lengths: Array
) -> None:
    flat, counts = tokenizer.encode_flat(units)
    flats.append(flat)
    np.add.at(lengths, owners, counts)


def cut_units(text: bytes, limit: int = UNIT) -> list[bytes]:
    """The text in units of at most `limit` bytes, cut behind a line end, or else before a sign."""
    if len(text) <= limit:
        return [text]
    units = []
    start = 0
    while len(text) - start > limit:
        end = text.rfind(b"\n", start, start + limit) + 1
        if end <= start:
            end = start + limit
            while text[end] & 0xC0 == 0x80:
                end -= 1
        units.append(text[start:end])
        start = end
    return [*units, text[start:]]
