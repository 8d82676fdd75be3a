"""One small tokenizer of each kind, trained once."""

import inspect
import textwrap

import pytest

from gpt4o_lit.tokenizer import ByteTokenizer, Tokenizer, TrainCharacters, TrainSentencePiece

CHINESE = "春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。\n"
KINDS = ("unigram", "bpe", "char", "bytes")


@pytest.fixture(scope="session")
def text() -> str:
    return "the cat sat on the mat\n" + inspect.getsource(textwrap) + 20 * CHINESE


@pytest.fixture(scope="session")
def tokenizers(text: str) -> dict[str, Tokenizer]:
    return {
        "unigram": TrainSentencePiece(vocab_size=600).build([text]),
        "bpe": TrainSentencePiece(vocab_size=600, model_type="bpe").build([text]),
        "char": TrainCharacters().build([text]),
        "bytes": ByteTokenizer(),
    }


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tokenizers: dict[str, Tokenizer]) -> Tokenizer:
    return tokenizers[request.param]
