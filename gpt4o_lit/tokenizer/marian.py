"""Tokenizers of Marian's models: a SentencePiece model for each language, one vocabulary."""

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import sentencepiece

from gpt4o_lit.tokenizer.sentence_piece import SPACE
from gpt4o_lit.tokenizer.special import SpecialIds
from gpt4o_lit.tokenizer.tokenizer import (
    BOS,
    EOS,
    MASK,
    PAD,
    UNK,
    Array,
    TextByText,
    check_ids,
    word_starts,
)

SOURCE, TARGET, VOCABULARY = "source.spm", "target.spm", "vocab.json"
LANGUAGE = re.compile(r">>[^<]*<<")


class MarianTokenizer(TextByText):
    """source.spm, target.spm and vocab.json behind our protocol; what they lack is appended.

    `encode` cuts text of the source language, `decode` joins text of the target language. A text
    may begin with the code of a target language, such as >>deu<<. Typographic signs are left as
    they are: who used sacremoses before training uses it before `encode`, too.

    Raises:
        ValueError: a file is no SentencePiece model, or the vocabulary lacks </s>, <unk> or <pad>.
    """

    def __init__(self, source: bytes, target: bytes, vocabulary: dict[str, int], name: str) -> None:
        self.source, self.target, self.vocabulary = source, target, vocabulary
        missing = [piece for piece in (EOS, UNK, PAD) if piece not in vocabulary]
        if missing:
            raise ValueError(f"{name}: {VOCABULARY} lacks {', '.join(missing)}; copy it again")
        self._cut, self._join = _open(source, SOURCE, name), _open(target, TARGET, name)
        self._pieces = {id: piece for piece, id in vocabulary.items()}
        self.num_pieces = max(self._pieces) + 1
        own = {piece: vocabulary[piece] for piece in (EOS, UNK, PAD)}
        self._own_special = set(own.values())
        special = SpecialIds(self.num_pieces, own.get, pad=PAD, bos=BOS, eos=EOS, mask=MASK)
        self.pad_id, self.bos_id, self.eos_id = special.pad, special.bos, special.eos
        self.unk_id: int | None = own[UNK]
        self.mask_id, self.sentinel_ids = special.mask, special.sentinels
        self.role_ids, self.fim_ids = special.roles, special.fim
        self._appended, self.vocab_size = special.appended, special.vocab_size

    @cached_property
    def special_ids(self) -> tuple[int, ...]:
        others = set(range(self.vocab_size)) - self._pieces.keys()
        return tuple(sorted(self._own_special | others))

    @property
    def spellings(self) -> list[bytes]:
        special = set(self.special_ids)
        return [
            b"" if id in special else self._pieces[id].replace(SPACE, " ").encode()
            for id in range(self.vocab_size)
        ]

    @cached_property
    def starts_word(self) -> Array:
        return word_starts([spelling.decode() for spelling in self.spellings])

    @cached_property
    def fingerprint(self) -> str:
        told = self.source + self.target + json.dumps(self.vocabulary, sort_keys=True).encode()
        return f"marian-1-{hashlib.blake2b(told, digest_size=16).hexdigest()}"

    def encode(self, text: str) -> list[int]:
        language = LANGUAGE.match(text)
        codes = [language.group()] if language else []
        pieces = codes + self._cut.encode(text[len("".join(codes)) :], out_type=str)
        ids = (self.vocabulary.get(piece, self.vocabulary[UNK]) for piece in pieces)
        return [self.vocabulary[UNK] if id in self._own_special else id for id in ids]

    def decode(self, ids: Sequence[int]) -> str:
        special = set(self.special_ids)
        plain = [id for id in check_ids(ids, self.vocab_size) if id not in special]
        text: str = self._join.decode_pieces([self._pieces[id] for id in plain])
        return text.replace(SPACE, " ").strip()

    def piece(self, id: int) -> str:
        check_ids([id], self.vocab_size)
        if id >= self.num_pieces:
            return self._appended[id - self.num_pieces]
        return self._pieces.get(id, f"<{id}>")

    def save(self, directory: Path | str) -> None:
        folder = Path(directory)
        self.save_files(folder)
        (folder / "tokenizer.json").write_text(json.dumps({"kind": "marian"}))

    def save_files(self, folder: Path) -> None:
        """Write the three files as Marian's models have them."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SOURCE).write_bytes(self.source)
        (folder / TARGET).write_bytes(self.target)
        text = json.dumps(self.vocabulary, ensure_ascii=False, indent=2)
        (folder / VOCABULARY).write_text(text, encoding="utf-8")


def load_marian(folder: Path) -> MarianTokenizer:
    """The tokenizer of a folder with source.spm, target.spm and vocab.json.

    Raises:
        FileNotFoundError: one of the three is missing.
        ValueError: one of them is damaged.
    """
    missing = [n for n in (SOURCE, TARGET, VOCABULARY) if not (folder / n).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {' and '.join(missing)}; copy it there")
    path = folder / VOCABULARY
    try:
        vocabulary = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is broken JSON ({error}); copy it again") from error
    ids = vocabulary.values() if isinstance(vocabulary, dict) else [None]
    if not all(type(id) is int and id >= 0 for id in ids):
        raise ValueError(f"{path} must give an id for each piece; copy it again")
    source, target = (folder / SOURCE).read_bytes(), (folder / TARGET).read_bytes()
    return MarianTokenizer(source, target, vocabulary, str(folder))


def _open(model: bytes, file: str, name: str) -> Any:
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise ValueError(f"{name}/{file} is no SentencePiece model; copy it again") from error
