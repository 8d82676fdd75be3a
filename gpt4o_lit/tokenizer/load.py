"""Open a tokenizer from a folder or a bare model file."""

import difflib
import json
from pathlib import Path

from gpt4o_lit.tokenizer.byte_level import ByteTokenizer
from gpt4o_lit.tokenizer.hugging_face import MODEL, FastTokenizer, SpecialNames
from gpt4o_lit.tokenizer.marian import load_marian
from gpt4o_lit.tokenizer.sentence_piece import SentencePieceTokenizer
from gpt4o_lit.tokenizer.tokenizer import Tokenizer


def load_tokenizer(path: Path | str) -> Tokenizer:
    """The tokenizer of a run, in a folder written by `save()`, or in a bare .model file."""
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(f"tokenizer {place} does not exist{nearest_name(place)}")
    if place.is_file():
        return SentencePieceTokenizer(place.read_bytes(), name=str(place))
    if (place / "tokenizer").is_dir():  # a run's directory
        place = place / "tokenizer"
    about = place / "tokenizer.json"
    if not about.is_file():
        raise FileNotFoundError(f"{place} holds no tokenizer.json; give a folder written by save()")
    settings = json.loads(about.read_text(encoding="utf-8"))
    kind = settings.get("kind")
    if kind == "bytes":
        return ByteTokenizer()
    if kind == "sentencepiece":
        model = place / "tokenizer.model"
        return SentencePieceTokenizer(model.read_bytes(), name=str(model))
    if kind == "hugging_face":
        text = (place / MODEL).read_text(encoding="utf-8")
        return FastTokenizer(text, SpecialNames(**settings["names"]), source=str(place / MODEL))
    if kind == "marian":
        return load_marian(place)
    raise ValueError(
        f"kind ({kind!r}) in {about} must be bytes, sentencepiece, hugging_face or marian; save "
        "it anew"
    )


def nearest_name(path: Path) -> str:
    """What to say of a path that is missing: `; did you mean X?`, or how far it leads."""
    while not path.parent.is_dir() and path.parent != path:
        path = path.parent
    names = [entry.name for entry in path.parent.iterdir()]
    close = difflib.get_close_matches(path.name, names, n=1)
    if close:
        return f"; did you mean {path.parent / close[0]}?"
    return f"; there is no {path.name!r} in {path.parent.resolve()}"
