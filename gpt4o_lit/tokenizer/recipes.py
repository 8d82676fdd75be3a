"""How a tokenizer comes to be: each recipe is a class that a YAML names by its class_path."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from gpt4o_lit.tokenizer.byte_level import ByteTokenizer
from gpt4o_lit.tokenizer.load import load_tokenizer
from gpt4o_lit.tokenizer.tokenizer import SPECIAL_PIECES, Tokenizer
from gpt4o_lit.tokenizer.train import train_sentence_piece

Normalization = Literal["identity", "nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf"]


class TokenizerRecipe(ABC):
    """What a tokenizer is made from; equal identities give equal tokenizers on equal text."""

    sample_bytes: int = 0
    """Bytes of sample text that `build` wants; 0 for a recipe that trains nothing."""
    seed: int = 0
    """Seed of the sample."""

    @abstractmethod
    def build(self, texts: Iterable[str]) -> Tokenizer:
        """The tokenizer; `texts` is the sample of the training text."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Plain data that changes whenever `build` would give something else."""


@dataclass(frozen=True, kw_only=True)
class TrainSentencePiece(TokenizerRecipe):
    """Train a SentencePiece model on a seeded sample of the training text."""

    vocab_size: int = 8192
    """Pieces in all, with 112 special ones and, with byte_fallback, 256 bytes among them."""
    model_type: Literal["unigram", "bpe", "word"] = "unigram"
    """unigram encodes four times faster; bpe trains ten times faster and writes fewer pieces. word
    takes what stands between spaces whole, the most frequent vocab_size of it: for text whose words
    and punctuation stand apart, and little of it. Other words are one piece, the unknown one."""
    normalization: Normalization = "identity"
    """Rule applied to text before it is encoded; all but identity lose what they normalize."""
    byte_fallback: bool = True
    """Write signs without a piece as bytes instead of as the unknown piece."""
    character_coverage: float = 1.0
    """Share of the sample's signs that get a piece of their own; 1.0 covers all CJK signs in it."""
    split_digits: bool = False
    """Make each digit a piece of its own."""
    max_piece_len: int = 16
    """Longest piece, in signs."""
    user_defined_symbols: list[str] = field(default_factory=list)
    """Strings that are always one piece, such as " <unk>" in a text that writes it for a word."""
    sample_bytes: int = 4_000_000
    """Most text to train on, in bytes."""
    seed: int = 0
    """Seed of the sample."""

    def __post_init__(self) -> None:
        _check_sample(self.sample_bytes)
        if self.model_type == "word" and self.byte_fallback:
            raise ValueError(
                "byte_fallback writes signs without a piece as bytes, and "
                "model_type word has words alone; set byte_fallback to false"
            )
        least = len(SPECIAL_PIECES) + 256 * self.byte_fallback
        if self.vocab_size <= least:
            raise ValueError(
                f"vocab_size ({self.vocab_size}) must be more than the {least} special and byte "
                f"pieces; set vocab_size to at least {least + 64}"
            )
        if not 0.9 <= self.character_coverage <= 1.0:
            raise ValueError(
                f"character_coverage ({self.character_coverage}) must be in 0.9..1.0; set it to 1.0"
            )
        for symbol in self.user_defined_symbols:
            if not symbol or symbol in SPECIAL_PIECES:
                raise ValueError(
                    f"user_defined_symbols holds {symbol!r}, which is no string of text; leave it "
                    "out, or write it with a space in front"
                )

    def build(self, texts: Iterable[str]) -> Tokenizer:
        return train_sentence_piece(
            texts,
            model_type=self.model_type,
            vocab_size=self.vocab_size,
            normalization=self.normalization,
            byte_fallback=self.byte_fallback,
            character_coverage=self.character_coverage,
            split_digits=self.split_digits,
            max_piece_len=self.max_piece_len,
            user_defined_symbols=self.user_defined_symbols,
        )

    def identity(self) -> dict[str, Any]:
        return {"recipe": type(self).__name__, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class TrainCharacters(TokenizerRecipe):
    """One piece for each character of a seeded sample of the training text."""

    byte_fallback: bool = True
    """Write characters that the sample lacks as bytes instead of as the unknown piece."""
    sample_bytes: int = 16_000_000
    """Most text to look for characters in, in bytes."""
    seed: int = 0
    """Seed of the sample."""

    def __post_init__(self) -> None:
        _check_sample(self.sample_bytes)

    def build(self, texts: Iterable[str]) -> Tokenizer:
        return train_sentence_piece(texts, model_type="char", byte_fallback=self.byte_fallback)

    def identity(self) -> dict[str, Any]:
        return {"recipe": type(self).__name__, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class LoadTokenizer(TokenizerRecipe):
    """A tokenizer that exists: a run's, one that `gpt4o-lit tokenizer` wrote, or a .model file."""

    path: str
    """Of the run, of the tokenizer's folder, or of a SentencePiece .model file."""

    def build(self, texts: Iterable[str] = ()) -> Tokenizer:
        return load_tokenizer(self.path)

    def identity(self) -> dict[str, Any]:
        return {
            "recipe": type(self).__name__,
            "fingerprint": load_tokenizer(self.path).fingerprint,
        }


@dataclass(frozen=True, kw_only=True)
class Bytes(TokenizerRecipe):
    """UTF-8 bytes as tokens; nothing is trained."""

    def build(self, texts: Iterable[str] = ()) -> Tokenizer:
        return ByteTokenizer()

    def identity(self) -> dict[str, Any]:
        return {"recipe": type(self).__name__}


def _check_sample(sample_bytes: int) -> None:
    if sample_bytes < 1:
        raise ValueError(f"sample_bytes ({sample_bytes}) must be at least 1; set it to 4000000")
