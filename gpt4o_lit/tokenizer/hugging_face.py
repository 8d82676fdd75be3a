"""Tokenizers in the files of the library `tokenizers` (tokenizer.json of Hugging Face)."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gpt4o_lit.tokenizer.special import SpecialIds
from gpt4o_lit.tokenizer.tokenizer import (
    BOS,
    EOS,
    MASK,
    PAD,
    Array,
    TextByText,
    check_ids,
    word_starts,
)

SPACE = "\u2581"
MODEL = "model.json"


@dataclass(frozen=True, kw_only=True)
class SpecialNames:
    """Which of the model's own pieces have a meaning; None: it has no such piece."""

    pad: str | None = None
    bos: str | None = None
    eos: str | None = None
    unk: str | None = None
    mask: str | None = None


class FastTokenizer(TextByText):
    """A tokenizer.json behind our protocol; the special pieces that it lacks are appended.

    Some models drop capitals, accents or spaces, so that not every text comes back.

    Raises:
        ValueError: the library is not installed, or the file is none of its own.
    """

    def __init__(self, model: str, names: SpecialNames, source: str = MODEL) -> None:
        try:
            import tokenizers
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{source} needs the library tokenizers; pip install 'gpt4o-lit[hf]'"
            ) from error
        self.model, self.names = model, names
        try:
            self._fast: Any = tokenizers.Tokenizer.from_str(model)
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"{source} is no tokenizer.json ({error}); copy it again") from error
        self._fast.no_truncation()
        self._fast.no_padding()
        self._fast.encode_special_tokens = True  # in text they are text
        self._ids: dict[str, int] = self._fast.get_vocab(with_added_tokens=True)
        self.num_pieces = max(self._ids.values()) + 1
        added = self._fast.get_added_tokens_decoder()
        self._special_ids = {id for id, piece in added.items() if piece.special}
        special = SpecialIds(
            self.num_pieces,
            lambda piece: own if (own := self._ids.get(piece)) in self._special_ids else None,
            pad=names.pad or PAD,
            bos=names.bos or BOS,
            eos=names.eos or EOS,
            mask=names.mask or MASK,
        )
        self.pad_id, self.bos_id, self.eos_id = special.pad, special.bos, special.eos
        self.unk_id = self._ids.get(names.unk) if names.unk else None
        self.mask_id, self.sentinel_ids = special.mask, special.sentinels
        self.role_ids, self.fim_ids = special.roles, special.fim
        self._appended, self.vocab_size = special.appended, special.vocab_size

    @cached_property
    def special_ids(self) -> tuple[int, ...]:
        unused = set(range(self.num_pieces)) - set(self._ids.values())
        appended = range(self.num_pieces, self.vocab_size)
        return tuple(sorted(self._special_ids | unused | {*appended}))

    @cached_property
    def spellings(self) -> list[bytes]:
        spelled = [b""] * self.vocab_size
        special = set(self.special_ids)
        spell = _speller(json.loads(self.model))
        for piece, id in self._ids.items():
            if id not in special:
                spelled[id] = spell(piece)
        return spelled

    @cached_property
    def starts_word(self) -> Array:
        starts = word_starts([spelled.decode(errors="replace") for spelled in self.spellings])
        if json.loads(self.model)["model"].get("type") == "WordPiece":
            for piece, id in self._ids.items():
                starts[id] = not piece.startswith("##")
        starts[list(self.special_ids)] = False
        return starts

    @cached_property
    def fingerprint(self) -> str:
        told = json.dumps([self.model, asdict(self.names)]).encode()
        return f"hugging_face-1-{hashlib.blake2b(told, digest_size=16).hexdigest()}"

    @property
    def opens_with_bos(self) -> bool:
        """Whether the model's own rules put bos before a text."""
        return bool(self._fast.encode("a").ids[:1] == [self.bos_id])

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._fast.encode(text, add_special_tokens=False).ids
        if self._guarded.isdisjoint(ids):
            return ids
        return [
            part for id in ids for part in (self._sign_by_sign(id) if id in self._guarded else [id])
        ]

    @cached_property
    def _guarded(self) -> frozenset[int]:
        """Special ids that a model can still give, for they are among its pieces (unigram)."""
        return frozenset(self._special_ids - {self.unk_id})

    def _sign_by_sign(self, id: int) -> list[int]:
        unknown = [] if self.unk_id is None else [self.unk_id]
        found = ([self._ids[sign]] if sign in self._ids else unknown for sign in self.piece(id))
        return [part for parts in found for part in parts]

    def decode(self, ids: Sequence[int]) -> str:
        special = set(self.special_ids)
        plain = [id for id in check_ids(ids, self.vocab_size) if id not in special]
        text: str = self._fast.decode(plain, skip_special_tokens=False)
        return text

    def piece(self, id: int) -> str:
        check_ids([id], self.vocab_size)
        if id >= self.num_pieces:
            return self._appended[id - self.num_pieces]
        return str(self._fast.id_to_token(id))

    def save(self, directory: Path | str) -> None:
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MODEL).write_text(self.model, encoding="utf-8")
        about = {"kind": "hugging_face", "names": asdict(self.names)}
        (folder / "tokenizer.json").write_text(json.dumps(about), encoding="utf-8")


def _speller(model: dict[str, Any]) -> Any:
    """How the pieces of a model are turned into bytes of text."""
    kinds = set(_kinds(model))
    if "ByteLevel" in kinds:
        table = byte_signs()
        return lambda piece: b"".join(
            bytes([table[sign]]) if sign in table else sign.encode() for sign in piece
        )
    stands_in = bool(model["model"].get("byte_fallback"))

    def spell(piece: str) -> bytes:
        if stands_in and len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes([int(piece[3:5], 16)])
        return piece.removeprefix("##").replace(SPACE, " ").encode()

    return spell


def _kinds(part: Any) -> list[str]:
    """The types of all steps of a model."""
    if isinstance(part, list):
        return [kind for each in part for kind in _kinds(each)]
    if not isinstance(part, dict):
        return []
    steps = [part.get(name) for name in ("pre_tokenizer", "pretokenizers", "decoder", "decoders")]
    return [str(part.get("type")), *(kind for step in steps for kind in _kinds(step))]


def byte_signs() -> dict[str, int]:
    """The signs that stand for bytes in GPT-2's pieces: printable ones for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    signs = {chr(byte): byte for byte in printable}
    return signs | {chr(256 + number): byte for number, byte in enumerate(others)}
