"""Pairs of a table become tokens once; what is left out is counted and named."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from gpt4o_lit.corpus import Examples, PairsConfig, prepare_pairs
from gpt4o_lit.corpus.pairs import texts_of
from gpt4o_lit.tokenizer import Bytes, ByteTokenizer, Tokenizer, TokenizerRecipe

ROWS = [(f"source {number}", f"target of {number}") for number in range(40)]


class Sampling(TokenizerRecipe):
    """Remembers what it was given to learn from."""

    sample_bytes = 2_000

    def build(self, texts: Iterable[str]) -> Tokenizer:
        self.texts = list(texts)
        return ByteTokenizer()

    def identity(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "train.tsv"
    path.write_text("".join(f"{a}\t{b}\n" for a, b in ROWS), encoding="utf-8")
    return path


def prepare(table: Path, **settings: Any) -> Examples:
    settings = {"train": str(table), "columns": ["source", "target"]} | settings
    return prepare_pairs(PairsConfig(**settings), Bytes(), table.parent / "pairs")


def texts(pairs: Examples, split: str) -> list[tuple[str, str]]:
    """The texts of a split as its tokens say them."""
    opened = pairs.split(split)
    decode = pairs.tokenizer.decode
    return [
        (decode(source.tolist()), decode(target.tolist()))
        for source, target in map(opened.pair, range(len(opened)))
    ]


def test_each_pair_goes_to_one_split_and_is_what_the_table_says(table: Path) -> None:
    pairs = prepare(table, valid_fraction=0.2, test_fraction=0.2)
    found = {split: texts(pairs, split) for split in ("train", "valid", "test")}
    assert sorted(pair for pairs in found.values() for pair in pairs) == sorted(ROWS)
    assert all(found.values())
    said = [(pair.source, pair.references[0]) for pair in texts_of(pairs, "valid")]
    assert said == found["valid"]


def test_templates_make_both_sides_and_all_references(tmp_path: Path) -> None:
    lines = ['{"q": "who", "answers": ["a", "b"]}', '{"q": "what", "answers": ["c"], "other": "d"}']
    path = tmp_path / "qa.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    pairs = prepare(
        path, columns=None, test=str(path), valid_fraction=0, source="answer: {q}?",
        target="{answers}", references=["{answers}", "{other}"],
    )  # fmt: skip
    assert texts(pairs, "train") == [("answer: who?", "a"), ("answer: what?", "c")]
    assert [pair.references for pair in texts_of(pairs, "test")] == [["a", "b"], ["c", "d"]]


def test_blanks_in_a_row_are_one_where_that_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    row = {"source": "  if\t it  is", "target": "   if\n  it :"}
    path.write_text(json.dumps(row), encoding="utf-8")
    for number, (collapse, expected) in enumerate(
        [(False, (row["source"], row["target"])), (True, ("if it is", "if it :"))]
    ):
        config = PairsConfig(train=str(path), valid=str(path), collapse_blanks=collapse)
        pairs = prepare_pairs(config, Bytes(), tmp_path / str(number))
        (found,) = texts_of(pairs, "valid")
        assert (found.source, found.references[0]) == expected
        both = pairs.split("train").pair(0)
        assert tuple(pairs.tokenizer.decode(side.tolist()) for side in both) == expected


def test_nothing_is_made_anew_until_something_changes(table: Path) -> None:
    folder = table.parent / "pairs"
    prepare(table)
    before = (folder / "train-source.bin").stat().st_mtime_ns
    prepare(table)
    assert (folder / "train-source.bin").stat().st_mtime_ns == before
    first = prepare(table).identity
    table.write_text(table.read_text() + "new\tpair\n")
    assert prepare(table).identity != first
    assert prepare(table, source="to English: {source}").identity != first


def test_what_was_killed_before_its_end_is_made_anew(table: Path) -> None:
    whole = texts(prepare(table), "train")
    folder = table.parent / "pairs"
    (folder / "examples.json").unlink()
    (folder / "train-source.bin").write_bytes(b"half")
    (folder / "train-target.bin.77.part").write_bytes(b"half")
    assert texts(prepare(table), "train") == whole


@pytest.mark.parametrize(
    ("line", "settings", "kind", "message"),
    [
        ("\tno source", {}, "unfit row", "train.tsv:41: its source is empty"),
        ("no target\t ", {}, "unfit row", "train.tsv:41: its target is empty"),
        ("alone", {}, None, "train.tsv:41"),
        ("a\tb", {"source": "{zh}"}, "unfit row", "no column 'zh'"),
        ("x" * 300 + "\tlong", {"too_long": "raise"}, None, "train.tsv:41: its source has 300"),
    ],
)
def test_faults_are_named_with_their_line_or_counted(
    line: str, settings: dict[str, Any], kind: str | None, message: str, table: Path
) -> None:
    table.write_text(table.read_text() + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        prepare(table, **settings)
    if kind is None or settings:
        return
    counts = prepare(table, on_error="skip", valid_fraction=0.0).counts["train"]
    assert counts[kind] == 1
    assert counts["examples"] == len(ROWS)


@pytest.mark.parametrize(("too_long", "pairs", "pieces"), [("skip", 40, 0), ("truncate", 41, 15)])
def test_long_pairs_are_left_out_or_cut_and_counted(
    too_long: str, pairs: int, pieces: int, table: Path
) -> None:
    table.write_text(table.read_text() + "x" * 300 + "\tlong\n", encoding="utf-8")
    made = prepare(table, too_long=too_long, max_source_len=16, valid_fraction=0.0)
    assert made.counts["train"]["source too long"] == 1
    assert made.counts["train"]["examples"] == pairs
    if pieces:
        assert int(made.split("train").lengths[-1, 0]) == pieces


def test_files_of_others_are_left_alone(table: Path) -> None:
    with pytest.raises(ValueError, match=r"holds other files .*train\.tsv"):
        prepare_pairs(PairsConfig(train=str(table)), Bytes(), table.parent)


def test_a_split_that_is_empty_is_named(table: Path) -> None:
    pairs = prepare(table, valid_fraction=0.0)
    with pytest.raises(ValueError, match=r"split valid is empty; give data's valid"):
        pairs.split("valid")


def test_the_tokenizer_learns_from_a_bounded_part_of_both_sides(table: Path) -> None:
    table.write_text("".join(f"{a}\t{b}\n" for a, b in ROWS * 50), encoding="utf-8")
    recipe = Sampling()
    config = PairsConfig(train=str(table), columns=["source", "target"])
    prepare_pairs(config, recipe, table.parent / "pairs")
    assert 1_500 < sum(len(text.encode()) for text in recipe.texts) <= recipe.sample_bytes
    assert {text.split()[0] for text in recipe.texts} == {"source", "target"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "no column"}, "names no column"),
        ({"max_source_len": 1}, r"max_source_len \(1\) must be at least 2"),
        ({"valid_fraction": 1.0}, r"valid_fraction \(1.0\) must be in 0..1"),
        ({"target": "{a"}, "single {"),
    ],
)
def test_mistakes_in_the_config_are_told_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PairsConfig(train="train.tsv", **settings)
