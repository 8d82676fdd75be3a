"""Marian's three files give the ids and the texts that transformers' own tokenizer gives."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from gpt4o_lit.interop.load_tokenizer import load_hugging_face_tokenizer
from gpt4o_lit.interop.save_tokenizer import save_tokenizer
from gpt4o_lit.tokenizer import MarianTokenizer, load_tokenizer

ENGLISH = ["the cat saw a small dog near its house", "every child laughed while some birds sang"]
CHINESE = ["我爱吃苹果", "小猫看见一只狗在房子旁边", "孩子们笑了"]


def write_files(folder: Path) -> Path:
    """A vocabulary in an order of its own, a code of a language, and a model for each language."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = {"</s>": 0, "<unk>": 1, ">>zho<<": 2}
    for file, texts in (("source.spm", ENGLISH * 20), ("target.spm", CHINESE * 20)):
        with (folder / file).open("wb") as model:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts), model_writer=model, vocab_size=60,
                hard_vocab_limit=False, minloglevel=2,
            )  # fmt: skip
        processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / file))
        for id in range(3, processor.vocab_size()):  # behind <unk>, <s> and </s>
            pieces.setdefault(processor.id_to_piece(id), len(pieces))
    pieces["<pad>"] = len(pieces)
    (folder / "vocab.json").write_text(json.dumps(pieces, ensure_ascii=False), encoding="utf-8")
    settings = {"tokenizer_class": "MarianTokenizer", "separate_vocabs": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("marian") / "theirs")


@pytest.fixture(scope="module")
def pair(files: Path) -> tuple[Any, Any]:
    transformers = pytest.importorskip("transformers")
    return load_hugging_face_tokenizer(files), transformers.MarianTokenizer.from_pretrained(files)


words = st.lists(st.sampled_from([*" ".join(ENGLISH).split(), "苹果", "ß", ">>zho<<", "</s>", " "]))


@given(words.map(" ".join) | st.text(max_size=30))
def test_text_becomes_the_ids_of_theirs(pair: tuple[Any, Any], text: str) -> None:
    ours, theirs = pair
    found = ours.encode(text)
    assert not set(found) & ({*ours.special_ids} - {ours.unk_id})
    expected = theirs.convert_tokens_to_ids(theirs._tokenize(text))
    marks = {ours.eos_id, ours.pad_id}
    assert found == [ours.unk_id if id in marks else id for id in expected]


@given(st.lists(st.integers(0, 120), max_size=20))
def test_ids_become_the_text_of_theirs(pair: tuple[Any, Any], ids: list[int]) -> None:
    ours, theirs = pair
    ids = [id for id in ids if id < ours.num_pieces]
    expected = theirs.decode(ids, skip_special_tokens=True, use_source_tokenizer=False)
    assert ours.decode(ids) == expected


def test_what_is_saved_is_what_is_read(pair: tuple[Any, Any], tmp_path: Path) -> None:
    import transformers

    ours, theirs = pair
    ours.save(tmp_path / "ours")
    again = load_tokenizer(tmp_path / "ours")
    assert isinstance(again, MarianTokenizer)
    assert again.fingerprint == ours.fingerprint
    assert again.encode(ENGLISH[0]) == ours.encode(ENGLISH[0])
    save_tokenizer(ours, tmp_path / "export", max_seq_len=64)
    exported = transformers.AutoTokenizer.from_pretrained(tmp_path / "export")
    assert type(exported) is type(theirs)
    text = f">>zho<< {ENGLISH[1]}"
    assert exported(text)["input_ids"] == [*ours.encode(text), ours.eos_id]


def test_bytes_and_starts_follow_the_pieces(pair: tuple[Any, Any]) -> None:
    ours, _ = pair
    ids = ours.encode(ENGLISH[0])
    assert ours.token_bytes[ids].sum() == len(f" {ENGLISH[0]}".encode())
    assert ours.starts_word[ids].sum() == len(ENGLISH[0].split())
    assert ours.token_bytes[list(ours.special_ids)].sum() == 0


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda d: (d / "target.spm").unlink(), FileNotFoundError, "lacks target.spm"),
        (lambda d: (d / "source.spm").write_text("a"), ValueError, "source.spm is no Sentence"),
        (lambda d: (d / "vocab.json").write_text("{"), ValueError, "vocab.json is broken JSON"),
        (lambda d: (d / "vocab.json").write_text("[1]"), ValueError, "must give an id"),
        (lambda d: (d / "vocab.json").write_text('{"a": 0}'), ValueError, "lacks </s>, <unk>"),
    ],
)
def test_damage_is_named(
    files: Path, tmp_path: Path, change: Any, error: type[Exception], match: str
) -> None:
    folder = shutil.copytree(files, tmp_path / "copy")
    change(folder)
    with pytest.raises(error, match=match):
        load_hugging_face_tokenizer(folder)
