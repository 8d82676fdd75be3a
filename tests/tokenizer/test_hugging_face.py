"""A tokenizer.json behind our protocol gives the ids and texts of the library itself."""

import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from gpt4o_lit.tokenizer import FastTokenizer, SpecialNames, load_tokenizer

CHINESE = "春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。\n"
LINES = ["the cat sat on the mat", *inspect.getsource(textwrap).split("\n"), *[CHINESE] * 20]
SAMPLES = [*LINES[:30], "", " ", "  two  spaces ", "a\n\n\tb", "né 🙂 Ω 春", "<s> </s> [MASK]"]


def byte_level() -> Any:
    """As GPT-2, Llama 3 and Qwen."""
    fast = tokenizers.Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    fast.train_from_iterator(LINES, trainer)
    return fast


def metaspace() -> Any:
    """As T5: a unigram model, a space in front."""
    fast = tokenizers.Tokenizer(models.Unigram())
    fast.pre_tokenizer = pre_tokenizers.Metaspace()
    fast.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=500, special_tokens=["<pad>", "</s>", "<unk>", "<extra_id_0>"],
        unk_token="<unk>", show_progress=False,
    )  # fmt: skip
    fast.train_from_iterator(LINES, trainer)
    return fast


def word_piece() -> Any:
    """As BERT: no capitals, marks around a text."""
    fast = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer()
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    fast.train_from_iterator(LINES, trainer)
    fast.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast.enable_truncation(8)
    fast.enable_padding()
    return fast


MAKERS: dict[str, tuple[Callable[[], Any], SpecialNames]] = {
    "byte_level": (byte_level, SpecialNames(eos="</s>")),
    "metaspace": (metaspace, SpecialNames(pad="<pad>", eos="</s>", unk="<unk>")),
    "word_piece": (
        word_piece,
        SpecialNames(pad="[PAD]", bos="[CLS]", eos="[SEP]", unk="[UNK]", mask="[MASK]"),
    ),
}


@pytest.fixture(scope="module", params=MAKERS)
def pair(request: pytest.FixtureRequest) -> tuple[str, Any, FastTokenizer]:
    make, names = MAKERS[request.param]
    fast = make()
    return request.param, fast, FastTokenizer(fast.to_str(), names)


def test_ids_are_those_of_the_library_without_marks(pair: tuple[str, Any, FastTokenizer]) -> None:
    _, fast, ours = pair
    fast.no_truncation()
    fast.no_padding()
    for text in SAMPLES[:-1]:
        assert ours.encode(text) == fast.encode(text, add_special_tokens=False).ids
        assert ours.decode(ours.encode(text)) == fast.decode(ours.encode(text))
    assert len(ours.encode("the cat sat on the mat " * 9)) > 8


def test_text_never_becomes_a_special_id(pair: tuple[str, Any, FastTokenizer]) -> None:
    ours = pair[2]
    unknown = {ours.unk_id}
    assert not set(ours.encode(SAMPLES[-1])) & set(ours.special_ids) - unknown
    ids = ours.encode("the cat")
    assert ours.decode([ours.bos_id, *ids, ours.eos_id]) == ours.decode(ids)


def test_own_special_pieces_are_used_and_others_appended(
    pair: tuple[str, Any, FastTokenizer],
) -> None:
    name, fast, ours = pair
    assert ours.eos_id == fast.token_to_id(MAKERS[name][1].eos)
    assert ours.vocab_size > ours.num_pieces == fast.get_vocab_size()
    ids = [ours.pad_id, ours.bos_id, ours.eos_id, ours.mask_id, *ours.sentinel_ids]
    ids += [*ours.role_ids.values(), *ours.fim_ids.values()]
    assert len(set(ids)) == len(ids)
    assert set(ids) <= set(ours.special_ids)
    assert ours.piece(ours.role_ids["user"]) == "<|user|>"
    if name == "metaspace":
        assert ours.sentinel_ids[0] == fast.token_to_id("<extra_id_0>")
    if name == "byte_level":
        assert ours.pad_id >= ours.num_pieces


def test_spellings_join_to_the_text(pair: tuple[str, Any, FastTokenizer]) -> None:
    name, _, ours = pair
    for text in SAMPLES[:-1]:
        ids = ours.encode(text)
        spelled = b"".join(ours.spellings[id] for id in ids).decode()
        if name == "byte_level":
            assert spelled == text
        elif ours.unk_id not in ids:
            assert spelled.replace(" ", "") == ours.decode(ids).replace(" ", "")
    assert ours.token_bytes.sum() == sum(map(len, ours.spellings))


def test_words_start_where_they_do(pair: tuple[str, Any, FastTokenizer]) -> None:
    name, _, ours = pair
    ids = ours.encode("the cat textwrapping")
    begins = np.flatnonzero(ours.starts_word[ids]).tolist()
    assert len(begins) == (2 if name == "byte_level" else 3)
    flat, lengths = ours.encode_flat(["the cat", "a"])
    assert flat.tolist() == ours.encode("the cat") + ours.encode("a")
    assert lengths.sum() == len(flat)


def test_saving_and_loading_change_nothing(
    pair: tuple[str, Any, FastTokenizer], tmp_path: Path
) -> None:
    ours = pair[2]
    ours.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.fingerprint == ours.fingerprint
    assert again.special_ids == ours.special_ids
    assert all(again.encode(text) == ours.encode(text) for text in SAMPLES)


def test_a_broken_file_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"x is no tokenizer\.json .*copy it again"):
        FastTokenizer("{}", SpecialNames(), "x")
