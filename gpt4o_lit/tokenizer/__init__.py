"""Text to token ids and back: SentencePiece, bytes, characters, Hugging Face's files."""

from gpt4o_lit.tokenizer.byte_level import ByteTokenizer
from gpt4o_lit.tokenizer.conversation import Message, Role, message_ids
from gpt4o_lit.tokenizer.hugging_face import FastTokenizer, SpecialNames
from gpt4o_lit.tokenizer.load import load_tokenizer
from gpt4o_lit.tokenizer.marian import MarianTokenizer, load_marian
from gpt4o_lit.tokenizer.recipes import (
    Bytes,
    LoadTokenizer,
    TokenizerRecipe,
    TrainCharacters,
    TrainSentencePiece,
)
from gpt4o_lit.tokenizer.sentence_piece import SentencePieceTokenizer
from gpt4o_lit.tokenizer.tokenizer import Tokenizer

__all__ = [
    "ByteTokenizer",
    "Bytes",
    "FastTokenizer",
    "LoadTokenizer",
    "MarianTokenizer",
    "Message",
    "Role",
    "SentencePieceTokenizer",
    "SpecialNames",
    "Tokenizer",
    "TokenizerRecipe",
    "TrainCharacters",
    "TrainSentencePiece",
    "load_marian",
    "load_tokenizer",
    "message_ids",
]
