"""A worker that dies while it tokenizes is named, and nobody waits for it."""

from array import array
from pathlib import Path

import pytest

from gpt4o_lit.corpus.encode import Job
from gpt4o_lit.corpus.pool import Pool
from gpt4o_lit.tokenizer import ByteTokenizer


def tokenize_by_one_that_dies(folder: Path) -> None:
    job = Job(str(folder / "shard"), "", b"text", array("i", [4]), b"\1", b"\1", "", False, True)
    with Pool(folder, 1, lambda path, info: None) as pool:
        pool._processes[0].kill()
        pool.submit(job)


def test_a_dead_worker_is_named(tmp_path: Path) -> None:
    ByteTokenizer().save(tmp_path)
    with pytest.raises(OSError, match=r"worker 0 \(pid \d+\) was killed by SIGKILL while it made"):
        tokenize_by_one_that_dies(tmp_path)
