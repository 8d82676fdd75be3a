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
class Job:
    """All that one shard is made from."""

    path: str
    digest: str
    texts: list[bytes]
    """Documents, and the pieces of long ones that fell into this shard."""
    opens: bytes
    """1 for each text that opens a document, else 0."""
    closes: bytes
    """1 for each text that closes a document, else 0."""
    add_bos: bool
    add_eos: bool


def run_job(job: Job, tokenizer: Tokenizer) -> ShardInfo:
    """Encode the parts and write the shard."""
    opens, closes = (np.frombuffer(flags, dtype=bool) for flags in (job.opens, job.closes))
    bos, eos = opens & job.add_bos, closes & job.add_eos
    tokens, begins = encode_texts(job.texts, bos, eos, tokenizer)
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    num_bytes = sum(map(len, job.texts))
    return write_shard(Path(job.path), job.digest, tokens.astype(dtype), begins[opens], num_bytes)


def encode_texts(
    texts: list[bytes], bos: Array, eos: Array, tokenizer: Tokenizer
) -> tuple[Array, Array]:
    """All tokens in a row, and where each text begins.

    `bos` and `eos` are bool (texts,): which texts have these pieces around them.
    """
    flat, lengths = _encode_units(texts, tokenizer)
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


def _encode_units(texts: list[bytes], tokenizer: Tokenizer) -> tuple[Array, Array]:
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
