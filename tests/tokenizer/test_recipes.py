"""Training: the same text gives the same model, and each mistake says its mend."""

import random
import re
from pathlib import Path

import pytest
import sentencepiece
from jsonargparse import ArgumentParser

from gpt4o_lit.tokenizer import (
    Bytes,
    LoadTokenizer,
    Tokenizer,
    TokenizerRecipe,
    TrainCharacters,
    TrainSentencePiece,
    load_tokenizer,
)


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_training_twice_gives_the_same_model(model_type: str, text: str) -> None:
    recipe = TrainSentencePiece(vocab_size=600, model_type=model_type)  # type: ignore[arg-type]
    assert recipe.build([text]).fingerprint == recipe.build([text]).fingerprint


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_too_large_a_vocabulary_names_the_largest_that_works(model_type: str) -> None:
    texts = ["hello world, hello word\n" * 50]
    recipe = TrainSentencePiece(vocab_size=4000, model_type=model_type)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"vocab_size \(4000\) .* at most \d+") as caught:
        recipe.build(texts)
    largest = int(re.findall(r"at most (\d+)", str(caught.value))[0])
    mended = TrainSentencePiece(vocab_size=largest, model_type=model_type)  # type: ignore[arg-type]
    assert mended.build(texts).vocab_size == largest
    assert "\n" not in str(caught.value)


def test_too_small_a_vocabulary_names_the_smallest_that_works() -> None:
    texts = ["".join(chr(0x4E00 + k) for k in range(500)) * 3]
    with pytest.raises(ValueError, match=r"vocab_size \(400\) .* at least \d+") as caught:
        TrainSentencePiece(vocab_size=400).build(texts)
    smallest = int(re.findall(r"at least (\d+)", str(caught.value))[0])
    built = TrainSentencePiece(vocab_size=smallest, model_type="bpe").build(texts)
    assert built.vocab_size == smallest


def test_full_coverage_gives_each_chinese_sign_a_piece(tokenizers: dict[str, Tokenizer]) -> None:
    assert len(tokenizers["bpe"].encode("春眠不覺曉處處聞啼鳥")) <= 10


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_user_defined_symbols_are_always_one_piece(model_type: str, text: str) -> None:
    recipe = TrainSentencePiece(
        vocab_size=600,
        model_type=model_type,  # type: ignore[arg-type]
        user_defined_symbols=[" <unk>", "[tag]"],
    )
    tokenizer = recipe.build([text])
    line = "the <unk> cat[tag] <unk>\n"
    ids = tokenizer.encode(line)
    pieces = [tokenizer.decode([id]) for id in ids]
    assert (pieces.count(" <unk>"), pieces.count("[tag]")) == (2, 1)
    assert not set(ids) & set(tokenizer.special_ids)
    assert tokenizer.decode(ids) == line
    assert recipe.identity() != TrainSentencePiece(vocab_size=600).identity()


def test_words_that_a_space_always_follows_become_pieces() -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=6)) for _ in range(40)]
    texts = [" ".join(["x", *rng.choices(words, k=30), "\n"]) for _ in range(300)]
    tokenizer = TrainSentencePiece(vocab_size=426).build(texts)
    assert [len(tokenizer.encode(f" {word}")) for word in words] == [1] * 40


def test_every_recipe_is_constructed_from_yaml(tmp_path: Path) -> None:
    parser = ArgumentParser()
    parser.add_argument("--tokenizer", type=TokenizerRecipe)
    args = {
        "class_path": "gpt4o_lit.tokenizer.TrainSentencePiece",
        "init_args": {"vocab_size": 999},
    }
    ready = parser.instantiate_classes(parser.parse_object({"tokenizer": args}))
    assert ready.tokenizer == TrainSentencePiece(vocab_size=999)
    for name, recipe in {"Bytes": Bytes(), "TrainCharacters": TrainCharacters()}.items():
        plain = {"tokenizer": {"class_path": f"gpt4o_lit.tokenizer.{name}"}}
        assert parser.instantiate_classes(parser.parse_object(plain)).tokenizer == recipe


@pytest.mark.parametrize("rule", ["nfkc", "nmt_nfkc", "nmt_nfkc_cf"])
def test_normalization_keeps_line_ends_and_runs_of_spaces(rule: str, text: str) -> None:
    tokenizer = TrainSentencePiece(vocab_size=600, normalization=rule).build([text])  # type: ignore[arg-type]
    assert tokenizer.decode(tokenizer.encode("a\n\n  b\tｃ ")) == "a\n\n  b\tc "


def test_without_byte_fallback_a_new_sign_is_unknown(text: str) -> None:
    tokenizer = TrainCharacters(byte_fallback=False).build([text])
    assert tokenizer.unk_id in tokenizer.encode("😀")
    assert tokenizer.vocab_size == 112 + len(set(text))


def test_words_are_one_piece_each_and_others_unknown() -> None:
    recipe = TrainSentencePiece(vocab_size=115, model_type="word", byte_fallback=False)
    tokenizer = recipe.build(["the cat , the cat , the dog ."])
    cat, comma, bird, the = tokenizer.encode("the cat , bird the")[1:]
    assert tokenizer.encode(" cat ,") == [cat, comma]
    assert bird == tokenizer.unk_id
    assert tokenizer.decode([the, cat]) == " the cat"


def test_a_foreign_model_gets_the_special_pieces_it_lacks(tmp_path: Path, text: str) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.split("\n")), model_prefix=str(tmp_path / "m"),
        vocab_size=130, user_defined_symbols=["<mask>"], hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    tokenizer = LoadTokenizer(path=str(tmp_path / "m.model")).build()
    own = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "m.model")).vocab_size()
    # Its <mask> is found in text, so it cannot be ours.
    assert tokenizer.mask_id >= own
    assert tokenizer.pad_id >= own
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    assert not set(tokenizer.encode("a <mask> <pad>")) & {tokenizer.mask_id, tokenizer.pad_id}
    assert tokenizer.decode([tokenizer.mask_id, *tokenizer.encode("the cat")]) == "the cat"


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "tokens.model").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"tokens\.model is no SentencePiece model"):
        load_tokenizer(tmp_path / "tokens.model")
    with pytest.raises(FileNotFoundError, match=r"did you mean .*tokens\.model"):
        load_tokenizer(tmp_path / "token.model")
    with pytest.raises(FileNotFoundError, match=r"holds no tokenizer\.json"):
        load_tokenizer(tmp_path)
    with pytest.raises(ValueError, match=r"vocab_size \(300\) must be more than the 368"):
        TrainSentencePiece(vocab_size=300)
    with pytest.raises(ValueError, match=r"model_type word has words alone; set byte_fallback"):
        TrainSentencePiece(model_type="word")
    with pytest.raises(ValueError, match=r"holds '<pad>', which is no string of text"):
        TrainSentencePiece(user_defined_symbols=["<pad>"])
    with pytest.raises(ValueError, match=r"sample .* holds no text"):
        TrainCharacters().build([])


def test_the_trainers_log_stays_out_of_ours(capfd: pytest.CaptureFixture[str], text: str) -> None:
    TrainCharacters().build([text])
    assert capfd.readouterr() == ("", "")
