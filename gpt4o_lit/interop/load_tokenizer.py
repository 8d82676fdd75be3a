"""Reads the tokenizer of a Hugging Face directory."""

from pathlib import Path
from typing import Any

from gpt4o_lit.interop.files import read_json
from gpt4o_lit.tokenizer import (
    FastTokenizer,
    SentencePieceTokenizer,
    SpecialNames,
    Tokenizer,
    load_marian,
)
from gpt4o_lit.tokenizer.marian import SOURCE

FAST = "tokenizer.json"
SENTENCE_PIECE = ("tokenizer.model", "spiece.model")
SETTINGS = ("special_tokens_map.json", "tokenizer_config.json")
# BERT's marks around a text serve where a model has no others.
NAMES = {
    "pad": ("pad_token",),
    "bos": ("bos_token", "cls_token"),
    "eos": ("eos_token", "sep_token"),
    "unk": ("unk_token",),
    "mask": ("mask_token",),
}


def load_hugging_face_tokenizer(directory: Path | str) -> Tokenizer:
    """The tokenizer out of tokenizer.json, of a SentencePiece model, or of Marian's three files.

    Raises:
        FileNotFoundError: there is none of these.
        ValueError: a file is damaged.
    """
    directory = Path(directory)
    fast = directory / FAST
    if fast.exists():
        return FastTokenizer(fast.read_text(encoding="utf-8"), special_names(directory), str(fast))
    for name in SENTENCE_PIECE:
        if (directory / name).exists():
            return SentencePieceTokenizer((directory / name).read_bytes(), str(directory / name))
    if (directory / SOURCE).exists():
        return load_marian(directory)
    raise FileNotFoundError(
        f"{fast}: no such file, nor {' or '.join((*SENTENCE_PIECE, SOURCE))}; open the tokenizer "
        "with transformers' AutoTokenizer and save it there"
    )


def special_names(directory: Path) -> SpecialNames:
    """What the settings beside a tokenizer.json call its special pieces."""
    settings: dict[str, Any] = {}
    for name in SETTINGS:
        if (directory / name).exists():
            settings |= {k: v for k, v in read_json(directory / name).items() if v is not None}
    return SpecialNames(
        **{
            ours: next((_content(settings[name]) for name in names if name in settings), None)
            for ours, names in NAMES.items()
        }
    )


def _content(value: Any) -> str:
    """A piece is written as itself, or as an object with its content."""
    return str(value["content"] if isinstance(value, dict) else value)
