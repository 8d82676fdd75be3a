"""A build takes the memory of its processes and not that of its text, whatever the text is like."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from gpt4o_lit.corpus import Corpus, build
from tests.corpus.conftest import lines

MEMORY = """
import json, sys, threading, time, psutil
from gpt4o_lit.corpus import CorpusConfig, build, prepare
from gpt4o_lit.tokenizer import Bytes
most = 0
def watch():
    global most
    while True:
        here = psutil.Process()
        total = 0
        for process in [here, *here.children(recursive=True)]:
            try: total += process.memory_info().rss
            except psutil.Error: pass
        most = max(most, total)
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
build.SMALLEST_SHARD = build.LARGEST_SHARD  # as where the text is a hundred times as long
options = json.loads(sys.argv[3])
workers = options.pop("num_workers", 2)
prepare(CorpusConfig(sources=[sys.argv[1]], **options), Bytes(), sys.argv[2], num_workers=workers)
print(most)
"""
BLOCK = "\n".join(lines(0, 5000)) + "\n"


def peak(source: Path, output: Path, **options: object) -> int:
    """Bytes that all processes of a build have at most, added up."""
    command = [sys.executable, "-c", MEMORY, str(source), str(output), json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return int(done.stdout)


def fill(path: Path, size: int, blocks: Iterator[bytes]) -> int:
    """Write blocks until the file has `size` bytes; how many were written."""
    written = count = 0
    with path.open("wb") as out:
        while written < size:
            written += out.write(next(blocks))
            count += 1
    return count


def texts(text: str, shape: Callable[[str], str] = str) -> Iterator[bytes]:
    """The text again and again, each time with a number of its own in front."""
    number = 0
    while True:
        yield shape(f"{number} {text}").encode()
        number += 1


def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    fill(tmp_path / "a.txt", 150_000_000, texts(BLOCK))
    assert peak(tmp_path / "a.txt", tmp_path / "c", split="position") < 300e6
    assert Corpus.open(tmp_path / "c").split("train").num_documents == 1


@pytest.mark.parametrize("documents", ["blank_line", "line"])
def test_a_text_without_a_cut_is_read_in_blocks(documents: str, tmp_path: Path) -> None:
    text = BLOCK if documents == "blank_line" else BLOCK.replace("\n", " ")
    fill(tmp_path / "a.txt", 100_000_000, texts(text))
    options = {"documents": documents, "valid_fraction": 0.0}
    assert peak(tmp_path / "a.txt", tmp_path / "c", **options) < 300e6
    assert Corpus.open(tmp_path / "c").split("train").num_documents == 1


def test_long_lines_of_jsonl_take_little(tmp_path: Path) -> None:
    def row(text: str) -> str:
        return json.dumps({"text": text}, ensure_ascii=False) + "\n"

    count = fill(tmp_path / "a.jsonl", 80_000_000, texts(BLOCK * 40, row))
    assert count < 10
    assert peak(tmp_path / "a.jsonl", tmp_path / "c", valid_fraction=0.0) < 430e6
    assert Corpus.open(tmp_path / "c").split("train").num_documents == count


def test_a_parquet_file_of_one_row_group_takes_little(tmp_path: Path) -> None:
    rows = texts(BLOCK[:2000])
    column = pyarrow.array([next(rows).decode() for _ in range(60_000)])
    parquet.write_table(
        pyarrow.table({"text": column}),
        tmp_path / "a.parquet",
        row_group_size=len(column),
        use_dictionary=False,
        compression=None,
    )
    assert (tmp_path / "a.parquet").stat().st_size > 150e6
    assert peak(tmp_path / "a.parquet", tmp_path / "c") < 400e6


def test_sixteen_cores_take_less_than_a_gigabyte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "num_cores", lambda: 16)
    workers = build.num_processes()
    assert workers > 8
    fill(tmp_path / "a.txt", 150_000_000, texts(BLOCK))
    options = {"valid_fraction": 0.0, "num_workers": workers}
    assert peak(tmp_path / "a.txt", tmp_path / "c", **options) < 850e6
