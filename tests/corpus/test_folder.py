"""Only a folder that a corpus was built in is ever built in again, and only its files go."""

from dataclasses import replace
from pathlib import Path

import pytest

from gpt4o_lit.corpus import Corpus, CorpusConfig, prepare
from gpt4o_lit.tokenizer import Bytes

FOREIGN = {
    "a run": ["manifest.json", "tokenizer/tokenizer.json", "tokenizer/tokenizer.model"],
    "a run with its lock": [".lock", "manifest.json", "tokenizer/tokenizer.json"],
    "a webdataset": ["manifest.json", "shards/train-000000.tar", "shards/train-000001.tar"],
    "shards of others": [".lock", "shards/train-000000.tar"],
    "a tokenizer": ["tokenizer/tokenizer.json"],
    "another's tokenizer": ["shards/train-000000.bin", "tokenizer/vocab.json"],
    "another plan": ["plan.json", "shards/train-000000.bin"],
    "anything": [".lock", "mine.doc"],
}


@pytest.mark.parametrize("names", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_folder_of_others_is_refused_and_left_as_it_was(
    names: list[str], config: CorpusConfig, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text('{"format": 1, "sources": []}')
    with pytest.raises(ValueError, match=r"holds other files .*; give a new or an empty folder"):
        prepare(config, Bytes(), place)
    found = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert found == set(names)


def test_what_others_put_into_a_corpus_stays_when_it_is_built_anew(
    config: CorpusConfig, corpus: Corpus
) -> None:
    others = ["notes.txt", "shards/notes.txt", "shards/train-000000.tar", "tokenizer/vocab.json"]
    for name in others:
        (corpus.directory / name).write_text("mine")
    (corpus.directory / "shards" / "train-000099.bin").write_text("an old shard of ours")
    assert prepare(replace(config, valid_fraction=0.2), Bytes(), corpus.directory).shards_built > 0
    assert all((corpus.directory / name).read_text() == "mine" for name in others)
    assert not (corpus.directory / "shards" / "train-000099.bin").exists()


def test_a_build_killed_before_its_plan_goes_on(config: CorpusConfig, corpus: Corpus) -> None:
    (corpus.directory / "manifest.json").unlink()
    (corpus.directory / "plan.json").rename(corpus.directory / "plan.json.77.part")
    assert prepare(config, Bytes(), corpus.directory).changes == ("nothing was prepared yet",)
    assert not list(corpus.directory.rglob("*.part"))
