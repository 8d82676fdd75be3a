"""A long document is encoded in parts, and has the tokens of the whole."""

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from gpt4o_lit.corpus import CorpusConfig, blocks, documents, prepare
from gpt4o_lit.tokenizer import LoadTokenizer, SentencePieceTokenizer
from tests.corpus.conftest import WORDS

# How the models of Llama and Mistral, of T5, and of a third kind treat spaces.
RULES: dict[str, dict[str, Any]] = {
    "llama": {
        "normalization_rule_name": "identity", "remove_extra_whitespaces": False,
        "byte_fallback": True,
    },
    "t5": {},
    "no prefix": {"add_dummy_prefix": False},
}  # fmt: skip


def train(rules: dict[str, Any]) -> bytes:
    """A SentencePiece model that was not trained by our recipes."""
    draw, out = random.Random(0), io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(draw.choices(WORDS, k=20)) for _ in range(300)]),
        model_writer=out, vocab_size=400, hard_vocab_limit=False, num_threads=1, minloglevel=2,
        **rules,
    )  # fmt: skip
    return out.getvalue()


@pytest.fixture(params=RULES)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "m.model").write_bytes(train(RULES[request.param]))
    return tmp_path / "m.model"


@pytest.mark.parametrize("in_blocks", [False, True])
def test_a_long_document_has_the_tokens_of_the_whole(
    in_blocks: bool,
    model: Path,
    tmp_path: Path,
    small_shards: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if in_blocks:  # which fall into many shards
        monkeypatch.setattr(documents, "LARGE", 10_000)
        monkeypatch.setattr(blocks, "BLOCK", 5_000)
        small_shards(9_000)
    draw = random.Random(1)
    text = "".join("  " * (k % 3) + " ".join(draw.choices(WORDS, k=9)) + "\n" for k in range(3000))
    assert len(text.encode()) > 4 << 15
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    config = CorpusConfig(sources=[str(tmp_path / "a.txt")], valid_fraction=0.0, add_eos=False)
    recipe = LoadTokenizer(path=str(model))
    split = prepare(config, recipe, tmp_path / "c", num_workers=0).split("train")
    assert len(split.shards) > 10 or not in_blocks
    assert split.tokens(0, split.num_tokens).tolist() == recipe.build().encode(text)


def test_no_space_comes_in_behind_the_sign_that_stands_for_one() -> None:
    tokenizer = SentencePieceTokenizer(train(RULES["llama"]))
    text = "the\u2581cat \u2581\u2581sat"
    assert tokenizer.decode(tokenizer.encode(text)) == text
