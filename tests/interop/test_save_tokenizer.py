"""AutoTokenizer opens what we write, and gives the ids that we give."""

import inspect
import io
import textwrap
from pathlib import Path

import pytest
import sentencepiece
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt4o_lit.interop.save_tokenizer import convert, save_tokenizer
from gpt4o_lit.tokenizer import (
    ByteTokenizer,
    Message,
    Tokenizer,
    TrainCharacters,
    TrainSentencePiece,
    message_ids,
)
from gpt4o_lit.tokenizer.sentence_piece import SentencePieceTokenizer

CHINESE = "春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。\n"
TEXT = "the cat sat on the mat\n" + inspect.getsource(textwrap) + 20 * CHINESE


def foreign(model_type: str) -> SentencePieceTokenizer:
    """As Llama's and T5's: a space in front, and extra spaces dropped."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.split("\n")), model_writer=model, model_type=model_type,
        vocab_size=600, byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return SentencePieceTokenizer(model.getvalue())


TOKENIZERS: dict[str, Tokenizer] = {
    "bytes": ByteTokenizer(),
    "characters": TrainCharacters().build([TEXT]),
    "unigram": TrainSentencePiece(vocab_size=600).build([TEXT]),
    "bpe": TrainSentencePiece(vocab_size=600, model_type="bpe").build([TEXT]),
    "nfkc": TrainSentencePiece(vocab_size=600, normalization="nfkc").build([TEXT]),
    "nmt-bpe": TrainSentencePiece(
        vocab_size=600, model_type="bpe", normalization="nmt_nfkc"
    ).build([TEXT]),
    "symbols": TrainSentencePiece(
        vocab_size=600, model_type="bpe", user_defined_symbols=[" then", "[tag]"]
    ).build([TEXT]),
    "symbols-unigram": TrainSentencePiece(
        vocab_size=600, user_defined_symbols=[" the", "[tag]"]
    ).build([TEXT]),
    "foreign": foreign("unigram"),
    "foreign-bpe": foreign("bpe"),
}  # fmt: skip
UNIGRAMS = ("unigram", "nfkc", "symbols-unigram", "foreign")
FAST = {name: convert(tokenizer) for name, tokenizer in TOKENIZERS.items()}
SAMPLES = [
    *TEXT.split("\n")[:40],
    TEXT[:3000],
    "",
    " ",
    "   two  and   three   ",
    "a\n\n\tb\r\n",
    "né naïve ﬁ ２ 🙂 Ω",
    "x [tag] y [tag][tag] the then the",
]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_ids_are_equal(name: str) -> None:
    for text in SAMPLES:
        ours = TOKENIZERS[name].encode(text)
        assert FAST[name].encode(text, add_special_tokens=False).ids == ours, repr(text)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=st.text(st.sampled_from("ab the 春眠不.,\n\t  é🙂{}()0"), max_size=40))
@settings(max_examples=150, deadline=None)
def test_ids_of_any_text_are_equal(name: str, text: str) -> None:
    ours = TOKENIZERS[name].encode(text)
    theirs = FAST[name].encode(text, add_special_tokens=False).ids
    if name in UNIGRAMS:  # pieces in another order are as likely; the last bit of a sum decides
        assert sorted(theirs) == sorted(ours)
    else:
        assert theirs == ours
    assert FAST[name].decode(theirs) == TOKENIZERS[name].decode(ours)
    assert FAST[name].decode(ours) == TOKENIZERS[name].decode(ours)


def test_whole_words_are_refused() -> None:
    recipe = TrainSentencePiece(vocab_size=130, model_type="word", byte_fallback=False)
    with pytest.raises(ValueError, match="model_type unigram or bpe to export it"):
        convert(recipe.build([TEXT]))


@pytest.mark.parametrize("name", ["bytes", "unigram", "foreign-bpe"])
@pytest.mark.parametrize("add_bos", [False, True])
def test_auto_tokenizer_opens_it(name: str, add_bos: bool, tmp_path: Path) -> None:
    ours = TOKENIZERS[name]
    save_tokenizer(ours, tmp_path, max_seq_len=99, add_bos=add_bos)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    bos = [ours.bos_id] if add_bos else []
    for text in SAMPLES:
        assert theirs(text)["input_ids"] == [*bos, *ours.encode(text)]
    assert theirs.model_max_length == 99
    assert len(theirs) == ours.vocab_size
    for kind in ("pad", "bos", "eos", "mask"):
        assert getattr(theirs, f"{kind}_token_id") == getattr(ours, f"{kind}_id")
    messages = [Message("system", "be"), Message("user", "the cat")]
    ids = [id for message in messages for id in message_ids(ours, message)]
    said = theirs.apply_chat_template(
        [vars(message) for message in messages], add_generation_prompt=True, return_dict=False
    )
    assert said[len(said) - len(ids) - 1 :] == [*ids, ours.role_ids["assistant"]]
