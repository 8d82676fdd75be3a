"""SentencePiece models behind our protocol, with the special pieces that a model lacks appended."""

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import sentencepiece

from gpt4o_lit.tokenizer.tokenizer import (
    BOS,
    EOS,
    FIM,
    MASK,
    PAD,
    ROLES,
    SENTINELS,
    Array,
    check_ids,
    word_starts,
)

# SentencePiece writes a space as this sign and would decode the sign itself as a space.
SPACE = "\u2581"
# Texts of more signs than this come faster as arrays, shorter ones as lists.
ARRAY_LEN = 1000


class SentencePieceTokenizer:
    """A trained or foreign .model; byte fallback and identity normalization lose nothing."""

    def __init__(self, model: bytes, name: str = "model") -> None:
        self.model = model
        try:
            self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError(f"{name} is no SentencePiece model; give a .model file") from error
        self.num_pieces = int(self.processor.vocab_size())
        self._appended: list[str] = []
        self.pad_id = self._special(PAD, self.processor.pad_id())
        self.bos_id = self._special(BOS, self.processor.bos_id())
        self.eos_id = self._special(EOS, self.processor.eos_id())
        self.unk_id: int | None = int(self.processor.unk_id())
        self.mask_id = self._special(MASK)
        self.sentinel_ids = tuple(self._special(piece) for piece in SENTINELS)
        self.role_ids = {name: self._special(piece) for name, piece in ROLES.items()}
        self.fim_ids = {name: self._special(piece) for name, piece in FIM.items()}
        self.vocab_size = self.num_pieces + len(self._appended)
        byte_ids = [self.processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE.encode()]
        self._space_ids = byte_ids if all(map(self.processor.is_byte, byte_ids)) else []

    def _special(self, piece: str, id: int = -1) -> int:
        """The model's own id of a special piece, or a new one behind the model's pieces."""
        if id >= 0:
            return int(id)
        own = int(self.processor.piece_to_id(piece))
        # A piece that the encoder can produce from text must never serve as a special one.
        if own != self.processor.unk_id() and self.processor.is_control(own):
            return own
        self._appended.append(piece)
        return self.num_pieces + len(self._appended) - 1

    @cached_property
    def special_ids(self) -> tuple[int, ...]:
        own = [
            id
            for id in range(self.num_pieces)
            if self.processor.is_control(id)
            or self.processor.is_unknown(id)
            or self.processor.is_unused(id)
        ]
        return (*own, *range(self.num_pieces, self.vocab_size))

    @cached_property
    def token_bytes(self) -> Array:
        counts = np.array([len(text.encode()) for text in self._texts], dtype=np.int32)
        counts[[id for id in range(self.num_pieces) if self.processor.is_byte(id)]] = 1
        counts[list(self.special_ids)] = 0
        return counts

    @cached_property
    def starts_word(self) -> Array:
        starts = word_starts(self._texts)
        for id in range(self.num_pieces):
            if self.processor.is_byte(id):
                value = int(self.processor.id_to_piece(id)[3:5], 16)
                starts[id] = value < 128 and not chr(value).isalnum()
        starts[list(self.special_ids)] = False
        return starts

    @property
    def _texts(self) -> list[str]:
        own = [self.processor.id_to_piece(id) for id in range(self.num_pieces)]
        return [piece.replace(SPACE, " ") for piece in own] + self._appended

    @cached_property
    def fingerprint(self) -> str:
        return "sentencepiece-1-" + hashlib.blake2b(self.model, digest_size=16).hexdigest()

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self.processor.encode(list(texts), num_threads=1)
        if self._space_ids:
            for k, text in enumerate(texts):
                if SPACE in text:
                    ids[k] = self._encode_around_space_sign(text)
        return ids

    def encode_flat(self, texts: Sequence[str]) -> tuple[Array, Array]:
        if sum(map(len, texts)) > ARRAY_LEN * len(texts) and not any(SPACE in t for t in texts):
            arrays = self.processor.encode(list(texts), num_threads=1, out_type="numpy")
            return np.concatenate(arrays), np.array([len(a) for a in arrays], dtype=np.int64)
        ids = self.encode_batch(texts)
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        flat = np.fromiter(chain.from_iterable(ids), dtype=np.int32, count=int(lengths.sum()))
        return flat, lengths

    def _encode_around_space_sign(self, text: str) -> list[int]:
        parts = self.processor.encode(re.split(SPACE, text), num_threads=1)
        joined: list[int] = parts[0]
        for part in parts[1:]:
            joined = joined + self._space_ids + part
        return joined

    def decode(self, ids: Sequence[int]) -> str:
        plain = check_ids(ids, self.vocab_size)
        text: str = self.processor.decode([id for id in plain if id < self.num_pieces])
        return text

    def piece(self, id: int) -> str:
        check_ids([id], self.vocab_size)
        if id >= self.num_pieces:
            return self._appended[id - self.num_pieces]
        return str(self.processor.id_to_piece(id))

    def is_byte(self, id: int) -> bool:
        """Whether the id is one of the 256 that stand in for what has no piece."""
        return id < self.num_pieces and bool(self.processor.is_byte(id))

    def save(self, directory: Path | str) -> None:
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.model").write_bytes(self.model)
        (folder / "tokenizer.json").write_text(json.dumps({"kind": "sentencepiece"}))
