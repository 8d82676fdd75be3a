"""Building: the same bits for any number of workers or kills, and only when something changed."""

import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpt4o_lit.corpus import Corpus, CorpusConfig, prepare, sources
from gpt4o_lit.tokenizer import (
    Bytes,
    LoadTokenizer,
    TokenizerRecipe,
    TrainCharacters,
    TrainSentencePiece,
)
from tests.corpus.conftest import lines

BUILD = """
import sys
from gpt4o_lit.corpus import CorpusConfig, build, prepare
from gpt4o_lit.tokenizer import TrainSentencePiece
build.SMALLEST_SHARD = build.LARGEST_SHARD = int(sys.argv[4])
config = CorpusConfig(sources=[sys.argv[1]], documents="line", valid_fraction=0.1)
recipe = TrainSentencePiece(vocab_size=500, model_type="bpe", sample_bytes=20000)
corpus = prepare(config, recipe, sys.argv[2], num_workers=int(sys.argv[3]))
print(corpus.shards_built)
"""


def bits(directory: Path) -> dict[str, bytes]:
    """Every file of a corpus but its lock."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def start_build(text: Path, output: Path, workers: int, shard: int = 2000) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, str(text), str(output), str(workers), str(shard)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)


def test_builds_with_any_number_of_workers_are_bit_equal(folder: Path, tmp_path: Path) -> None:
    for workers in (0, 1, 2):
        assert start_build(folder, tmp_path / f"c{workers}", workers).wait(timeout=60) == 0
    alone = bits(tmp_path / "c0")
    assert sum(name.startswith("shards/train") for name in alone) > 10
    assert alone == bits(tmp_path / "c1") == bits(tmp_path / "c2")


def kill(build: subprocess.Popen[str]) -> None:
    """Kill a build, and wait for its workers too, which end with the shard they are at."""
    build.kill()
    build.communicate(timeout=60)


def shard_times(directory: Path) -> dict[str, int]:
    """When each finished shard was written."""
    return {path.name: path.stat().st_mtime_ns for path in directory.glob("shards/*.bin")}


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_build_goes_on_and_ends_the_same(seed: int, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(lines(seed, 4000)), encoding="utf-8")
    assert start_build(text, tmp_path / "whole", 0).wait(timeout=60) == 0
    killed, draw = tmp_path / "killed", random.Random(seed)
    early = start_build(text, killed, draw.choice((0, 2)))  # in its start, or the tokenizer's
    time.sleep(draw.uniform(0.1, 0.4))
    kill(early)
    num_shards = len(shard_times(tmp_path / "whole"))
    kept: dict[str, int] = {}
    for share in (0.1, 0.4):  # in the midst of the shards, twice
        build = start_build(text, killed, draw.choice((0, 2)))
        while len(shard_times(killed)) < share * num_shards and build.poll() is None:
            time.sleep(0.001)
        kill(build)
        earlier, kept = kept, shard_times(killed)
        assert earlier.items() <= kept.items()
        assert share * num_shards <= len(kept) < num_shards
    last = start_build(text, killed, 2)
    built, _ = last.communicate(timeout=60)
    assert last.returncode == 0
    assert int(built) == num_shards - len(kept)
    assert kept.items() <= shard_times(killed).items()
    assert bits(killed) == bits(tmp_path / "whole")


def test_whole_shards_are_kept_and_only_missing_ones_made(
    config: CorpusConfig, tmp_path: Path, small_shards: Callable[[int], None]
) -> None:
    small_shards(1000)
    whole = prepare(config, Bytes(), tmp_path / "c", num_workers=0)
    before = bits(tmp_path / "c")
    (tmp_path / "c" / "manifest.json").unlink()
    (tmp_path / "c" / "shards" / "train-000003.bin").unlink()
    half = tmp_path / "c" / "shards" / "train-000005.bin"
    half.write_bytes(half.read_bytes()[:-20])
    flipped = tmp_path / "c" / "shards" / "train-000007.bin"
    data = bytearray(flipped.read_bytes())
    data[-200] ^= 1
    flipped.write_bytes(data)
    again = prepare(config, Bytes(), tmp_path / "c", num_workers=0)
    assert whole.shards_built > 10
    assert again.shards_built == 3
    assert bits(tmp_path / "c") == before


def test_an_unchanged_corpus_costs_no_work(config: CorpusConfig, corpus: Corpus) -> None:
    start = time.perf_counter()
    again = prepare(config, Bytes(), corpus.directory)
    assert (again.shards_built, again.changes) == (0, ())
    assert time.perf_counter() - start < 1.0
    assert corpus.shards_built > 0


def test_a_touched_file_with_the_same_text_is_no_change(
    config: CorpusConfig, corpus: Corpus, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    digest = sources.file_digest
    monkeypatch.setattr(sources, "file_digest", lambda path: read.append(path) or digest(path))
    os.utime(folder / "1.txt", (1, 1))
    for _ in range(3):
        assert prepare(config, Bytes(), corpus.directory).shards_built == 0
    assert read == [str(folder / "1.txt")]  # anew, but once


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"valid_fraction": 0.2}, "config.valid_fraction 0.1 -> 0.2"),
        ({"add_bos": True}, "config.add_bos False -> True"),
        (
            {"documents": "blank_line", "split": "position"},
            "config.documents 'line' -> 'blank_line'",
        ),
    ],
)
def test_a_changed_option_is_named_and_built_anew(
    change: dict[str, object], match: str, config: CorpusConfig, corpus: Corpus
) -> None:
    changed = prepare(replace(config, **change), Bytes(), corpus.directory)  # type: ignore[arg-type]
    assert match in changed.changes
    assert changed.shards_built > 0
    assert changed.manifest != corpus.manifest


def test_changed_new_and_missing_files_are_named(
    config: CorpusConfig, corpus: Corpus, folder: Path
) -> None:
    (folder / "1.txt").write_text("\n".join(lines(9, 100)), encoding="utf-8")
    (folder / "2.txt").rename(folder / "3.txt")
    changed = prepare(config, Bytes(), corpus.directory)
    said = "; ".join(changed.changes)
    for what in ("1.txt changed", "3.txt is new", "2.txt is gone"):
        assert what in said
    fresh = prepare(config, Bytes(), corpus.directory.with_name("fresh"))
    assert bits(corpus.directory) == bits(fresh.directory)


def test_another_tokenizer_is_named(config: CorpusConfig, corpus: Corpus) -> None:
    changed = prepare(config, TrainCharacters(), corpus.directory)
    assert changed.changes == ("tokenizer Bytes -> TrainCharacters",)
    assert changed.tokenizer.unk_id is not None
    again = prepare(config, TrainCharacters(seed=1), corpus.directory)
    assert again.changes == ("tokenizer.seed 0 -> 1",)


def test_a_short_shard_is_noticed_and_mended_by_preparing(
    config: CorpusConfig, corpus: Corpus
) -> None:
    path = corpus.directory / "shards" / "train-000000.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(ValueError, match=r"train-000000\.bin has \d+ bytes instead of"):
        Corpus.open(corpus.directory)
    assert prepare(config, Bytes(), corpus.directory).shards_built == 1
    assert path.read_bytes() == whole


def test_a_flipped_bit_is_noticed_when_it_is_read(corpus: Corpus) -> None:
    path = corpus.directory / "shards" / "train-000000.bin"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    opened = Corpus.open(corpus.directory)
    with pytest.raises(ValueError, match=r"train-000000\.bin is damaged"):
        opened.split("train").tokens(0, 10)
    with pytest.raises(ValueError, match=r"train-000000\.bin is damaged"):
        opened.verify()


def test_starts_are_asked_for_without_reading_the_tokens(
    config: CorpusConfig, tmp_path: Path, small_shards: Callable[[int], None]
) -> None:
    small_shards(2000)
    path = prepare(config, Bytes(), tmp_path / "c").directory / "shards" / "train-000003.bin"
    whole = bytearray(path.read_bytes())
    data = bytearray(whole)
    data[1000] ^= 4  # among the tokens
    path.write_bytes(data)
    split = Corpus.open(tmp_path / "c").split("train")
    split.windows(np.array([0]), 16)
    damaged = int(split.tokens(0, split.shards[0].info.num_tokens).size)
    assert damaged < split.num_tokens
    with pytest.raises(ValueError, match=r"train-000003\.bin is damaged"):
        split.tokens(0, split.num_tokens)
    whole[-1] ^= 64  # the last start, far behind the shard's end
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"train-000003\.bin is damaged"):
        _ = Corpus.open(tmp_path / "c").split("train").document_starts


@pytest.mark.parametrize("how", ["gone", "another"])
def test_another_tokenizer_in_the_folder_is_noticed_and_mended(
    how: str, config: CorpusConfig, tmp_path: Path, small_shards: Callable[[int], None]
) -> None:
    small_shards(2000)
    recipe = TrainSentencePiece(vocab_size=420, model_type="bpe")
    corpus = prepare(config, recipe, tmp_path / "c", num_workers=0)
    before = bits(tmp_path / "c")
    shutil.rmtree(tmp_path / "c" / "tokenizer")
    if how == "another":
        Bytes().build().save(tmp_path / "c" / "tokenizer")
    for look in (lambda: Corpus.open(tmp_path / "c"), corpus.verify):
        with pytest.raises(ValueError, match=r"is not the one that encoded .*; prepare the corpus"):
            look()
    again = prepare(config, recipe, tmp_path / "c", num_workers=0)
    assert "is not the one that encoded" in again.changes[0]
    assert again.shards_built == 0  # trained anew it is the same, and so are the shards
    assert bits(tmp_path / "c") == before


def test_a_tokenizer_lost_before_the_end_is_made_anew(config: CorpusConfig, corpus: Corpus) -> None:
    before = bits(corpus.directory)
    (corpus.directory / "manifest.json").unlink()
    (corpus.directory / "tokenizer" / "tokenizer.json").unlink()
    assert prepare(config, Bytes(), corpus.directory).shards_built == 0
    assert bits(corpus.directory) == before


def test_an_open_tells_whether_another_config_was_prepared_meanwhile(
    config: CorpusConfig, corpus: Corpus, folder: Path
) -> None:
    assert Corpus.open(corpus.directory, expected=corpus.identity).identity == corpus.identity
    os.utime(folder / "1.txt", (1, 1))
    assert prepare(config, Bytes(), corpus.directory).identity == corpus.identity
    prepare(replace(config, valid_fraction=0.2), Bytes(), corpus.directory)
    with pytest.raises(ValueError, match=r"another corpus .* give each config its own directory"):
        Corpus.open(corpus.directory, expected=corpus.identity)
    Corpus.open(corpus.directory)


def test_calls_at_the_same_time_build_once(folder: Path, tmp_path: Path) -> None:
    builds = [start_build(folder, tmp_path / "c", 1) for _ in range(3)]
    built = [int(build.communicate(timeout=60)[0]) for build in builds]
    assert sorted(built)[:2] == [0, 0]
    assert max(built) > 0


def test_what_is_stored_is_what_was_read(tmp_path: Path) -> None:
    text = "".join(f"{k} 春\t\u2581 <pad>\n\n" for k in range(9000))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    recipes: list[TokenizerRecipe] = [TrainSentencePiece(vocab_size=420, model_type="bpe"), Bytes()]
    for number, recipe in enumerate(recipes):
        config = CorpusConfig(sources=[str(tmp_path / "a.txt")], valid_fraction=0.0, add_bos=True)
        corpus = prepare(config, recipe, tmp_path / f"c{number}", num_workers=0)
        ids = corpus.split("train").tokens(0, corpus.split("train").num_tokens).tolist()
        assert ids[0] == corpus.tokenizer.bos_id
        assert ids[-1] == corpus.tokenizer.eos_id
        assert not set(ids[1:-1]) & set(corpus.tokenizer.special_ids)
        assert corpus.tokenizer.decode(ids) == text


def test_skips_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\n\xff\ntwo\ntwo\n")
    config = CorpusConfig(
        sources=[str(tmp_path / "a.txt")], documents="line", valid_fraction=0.0, on_error="skip"
    )
    manifest = prepare(config, Bytes(), tmp_path / "c").manifest
    assert manifest["skips"] == {"not UTF-8": 1}
    assert manifest["duplicates"] == 1
    assert manifest["splits"]["train"] == {"documents": 2, "bytes": 6, "tokens": 8}


def test_an_empty_split_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one long text")
    config = CorpusConfig(sources=[str(tmp_path / "a.txt")])
    with pytest.raises(ValueError, match=r"would be empty \(1 documents in all\); .* position"):
        prepare(config, Bytes(), tmp_path / "c")


def test_mistakes_in_the_config_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sources is empty"):
        CorpusConfig(sources=[])
    with pytest.raises(ValueError, match=r"valid_fraction \(1.5\) must be in 0..1"):
        CorpusConfig(sources=["a"], valid_fraction=1.5)
    with pytest.raises(ValueError, match="must leave something to train on"):
        CorpusConfig(sources=["a"], valid_fraction=0.5, test_fraction=0.5)
    (tmp_path / "mine.doc").touch()
    with pytest.raises(ValueError, match="holds other files"):
        prepare(CorpusConfig(sources=["python-stdlib"]), Bytes(), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"tokenizer .*no\.model does not exist"):
        prepare(
            CorpusConfig(sources=["python-stdlib"]),
            LoadTokenizer(path=str(tmp_path / "no.model")),
            tmp_path / "c",
        )


@pytest.mark.data
def test_tinyshakespeare_is_split_at_its_usual_place(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "tinyshakespeare" / "input.txt"
    config = CorpusConfig(sources=[str(path)], split="position", valid_fraction=0.1, add_eos=False)
    corpus = prepare(config, TrainCharacters(), tmp_path / "c")
    text = path.read_text(encoding="utf-8")
    train, valid = corpus.split("train"), corpus.split("valid")
    assert (train.num_tokens, valid.num_tokens) == (1_003_854, 111_540)
    assert corpus.tokenizer.decode(valid.tokens(0, 111_540).tolist()) == text[1_003_854:]


def test_a_finished_build_knows_the_digest_of_every_file(folder: Path, tmp_path: Path) -> None:
    """Those that came by as one document, and those that a thread read beside."""
    (folder / "marked.txt").write_bytes(b"\xef\xbb\xbfwith a byte order mark")
    (folder / "empty.txt").write_bytes(b"")
    (folder / "packed.txt.gz").write_bytes(gzip.compress(b"packed text"))
    (folder / "rows.jsonl").write_text('{"text": "a row"}\n')
    (folder / "large.txt").write_text("a line of a large text\n" * 250_000)
    config = CorpusConfig(sources=[str(folder)], valid_fraction=0.0)
    prepare(config, Bytes(), tmp_path / "corpus")
    told = json.loads((tmp_path / "corpus" / "plan.json").read_text())["sources"]
    assert len(told) == len(list(folder.iterdir()))
    for entry in told:
        assert entry["digest"] == sources.file_digest(entry["path"]), entry["name"]


def test_a_file_that_was_touched_after_a_kill_is_read_again(
    config: CorpusConfig, corpus: Corpus, folder: Path
) -> None:
    """Its digest is not known yet, so its time tells."""
    plan = corpus.directory / "plan.json"
    values = json.loads(plan.read_text())
    for entry in values["sources"]:
        entry["digest"] = ""
    plan.write_text(json.dumps(values))
    assert prepare(config, Bytes(), corpus.directory).changes == ()
    plan.write_text(json.dumps(values))
    os.utime(folder / "1.txt", (1, 1))
    assert prepare(config, Bytes(), corpus.directory).changes == (
        f"source {folder / '1.txt'} changed",
    )
