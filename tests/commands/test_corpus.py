"""The verbs `corpus` and `tokenizer` from the command line."""

from pathlib import Path

import pytest

from gpt4o_lit.__main__ import main
from gpt4o_lit.corpus import Corpus
from gpt4o_lit.tokenizer import Bytes, load_tokenizer


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text("".join(f"line {k} of the text, 春\n" for k in range(3000)), encoding="utf-8")
    return path


def test_corpus_builds_prints_its_table_and_verifies(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "c"
    options = ["--documents", "line", "--valid_fraction", "0.2", "--quiet", "--num_workers", "0"]
    assert main(["corpus", "--output", str(output), "--sources", str(text), *options]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows[:4]] == ["split", "train", "valid", "test"]
    counts = [int(row[1].replace(",", "")) for row in rows[1:4]]
    assert sum(counts) == 3000
    assert counts[0] == Corpus.open(output).split("train").num_documents
    assert main(["corpus", "--output", str(output), "--verify"]) == 0


def test_corpus_takes_a_tokenizer_by_its_class(text: Path, tmp_path: Path) -> None:
    options = ["--split", "position", "--tokenizer", "TrainSentencePiece", "--quiet"]
    sizes = ["--tokenizer.vocab_size", "420", "--tokenizer.model_type", "bpe"]
    output = str(tmp_path / "c")
    assert main(["corpus", "--output", output, "--sources", str(text), *options, *sizes]) == 0
    assert Corpus.open(tmp_path / "c").tokenizer.vocab_size == 420


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--sources", "nowhere.txt"],
            "source nowhere.txt does not exist; there is no 'nowhere.txt' in ",
        ),
        (["--sources", "python-stdlib", "--documents", "lne"], "documents"),
        (["--sources", "python-stdlib", "--valid_fractoin", "1"], "valid_fractoin"),
        ([], "sources is empty"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["corpus", "--output", str(tmp_path / "c"), "--quiet", *options]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error


def test_tokenizer_trains_and_measures(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "t")
    arguments = ["--sources", str(text), "--output", output, "--vocab_size", "420", "--quiet"]
    assert main(["tokenizer", *arguments, "--model_type", "bpe"]) == 0
    tokenizer = load_tokenizer(output)
    assert tokenizer.vocab_size == 420
    capsys.readouterr()
    for path in (output, f"{output}/tokenizer.model"):
        assert main(["tokenizer", "--eval", path, str(text)]) == 0
        row = capsys.readouterr().out.splitlines()[1].split()
        size, tokens = (int(number.replace(",", "")) for number in row[:2])
        assert size == text.stat().st_size
        assert tokens == len(tokenizer.encode(text.read_text(encoding="utf-8")))
        assert row[3] == "0.000%"


def test_tokenizer_flags_reach_the_recipe_or_are_refused(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "t")
    arguments = ["tokenizer", "--sources", str(text), "--output", output, "--quiet"]
    symbols = ["--user_defined_symbols", " <unk>", "[tag]"]
    assert main([*arguments, "--vocab_size", "420", "--model_type", "bpe", *symbols]) == 0
    tokenizer = load_tokenizer(output)
    assert [tokenizer.decode([id]) for id in tokenizer.encode("[tag] <unk>")] == ["[tag]", " <unk>"]
    assert main([*arguments, "--model_type", "char", *symbols]) == 2
    assert "--user_defined_symbols is not for --model_type char" in capsys.readouterr().err


def test_tokenizer_measures_what_can_be_read_and_counts_the_rest(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "a.jsonl"
    rows.write_bytes(b'{"text": "four"}\n{"text": \n')
    Bytes().build().save(tmp_path / "t")
    arguments = ["tokenizer", "--eval", str(tmp_path / "t"), str(rows)]
    assert main(arguments) == 2
    assert "a.jsonl:2 is broken JSON" in capsys.readouterr().err
    assert main([*arguments, "--on_error", "skip"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1].split()[:2] == ["4", "4"]
    assert said[2] == "skipped, broken JSON: 1"


def test_verify_names_a_tokenizer_that_was_replaced(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "c")
    arguments = ["corpus", "--output", output, "--quiet"]
    options = ["--sources", str(text), "--documents", "line", "--tokenizer", "TrainCharacters"]
    assert main([*arguments, *options]) == 0
    Bytes().build().save(tmp_path / "c" / "tokenizer")
    assert main([*arguments, "--verify"]) == 2
    assert "prepare the corpus again" in capsys.readouterr().err


def test_tokenizer_names_the_largest_size_that_works(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--sources", str(text), "--output", str(tmp_path / "t"), "--quiet"]
    assert main(["tokenizer", *arguments, "--vocab_size", "30000"]) == 2
    assert "set vocab_size to at most" in capsys.readouterr().err
    assert not (tmp_path / "t").exists()
