"""SentencePiece models behind our protocol, with the special pieces that a model lacks appended."""

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from gpt4o_lit.tokenizer.special import SpecialIds
from gpt4o_lit.tokenizer.tokenizer import (
    BOS,
    EOS,
    MASK,
    PAD,
    Array,
    check_ids,
    flattened,
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
        special = SpecialIds(
            self.num_pieces,
            self._control,
            pad=_known(self.processor.pad_id(), PAD),
            bos=_known(self.processor.bos_id(), BOS),
            eos=_known(self.processor.eos_id(), EOS),
            mask=MASK,
        )
        self.pad_id, self.bos_id, self.eos_id = special.pad, special.bos, special.eos
        self.unk_id: int | None = int(self.processor.unk_id())
        self.mask_id, self.sentinel_ids = special.mask, special.sentinels
        self.role_ids, self.fim_ids = special.roles, special.fim
        self._appended, self.vocab_size = special.appended, special.vocab_size
        byte_ids = [self.processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE.encode()]
        self._space_ids = byte_ids if all(map(self.processor.is_byte, byte_ids)) else []
        normalize = self.processor.normalize
        # Models such as Llama's and T5's put a space in front; those such as T5's also drop spaces.
        self._has_prefix: bool = normalize("a").startswith(SPACE)
        self._drops_spaces: bool = normalize("a ") == normalize("a")

    def _control(self, piece: str) -> int | None:
        """The model's own id of a piece that it never produces from text."""
        own = int(self.processor.piece_to_id(piece))
        return own if own != self.processor.unk_id() and self.processor.is_control(own) else None

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

    @property
    def spellings(self) -> list[bytes]:
        spelled = [text.encode() for text in self._texts]
        for id in range(self.num_pieces):
            if self.processor.is_byte(id):
                spelled[id] = bytes([self._byte(id)])
        for id in self.special_ids:
            spelled[id] = b""
        return spelled

    @cached_property
    def token_bytes(self) -> Array:
        return np.array([len(spelling) for spelling in self.spellings], dtype=np.int32)

    @cached_property
    def starts_word(self) -> Array:
        starts = word_starts(self._texts)
        for id in range(self.num_pieces):
            if self.processor.is_byte(id):
                value = self._byte(id)
                starts[id] = value < 128 and not chr(value).isalnum()
        starts[list(self.special_ids)] = False
        return starts

    def _byte(self, id: int) -> int:
        """The value of a byte's piece, which is written as <0x0A>."""
        return int(self.processor.id_to_piece(id)[3:5], 16)

    @property
    def _texts(self) -> list[str]:
        own = [self.processor.id_to_piece(id) for id in range(self.num_pieces)]
        return [piece.replace(SPACE, " ") for piece in own] + self._appended

    @cached_property
    def fingerprint(self) -> str:
        rules = 2 if self._has_prefix or self._drops_spaces else 1
        return f"sentencepiece-{rules}-{hashlib.blake2b(self.model, digest_size=16).hexdigest()}"

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self._encode(self.processor, texts)

    def encode_flat(self, texts: Sequence[str], befores: Sequence[str] = ()) -> tuple[Array, Array]:
        if not any(befores) or not (self._has_prefix or self._drops_spaces):
            return self._encode_flat(self.processor, texts)
        pairs = zip(texts, befores, strict=True)
        prefixed = np.array([self._has_space_in_front(text, before) for text, before in pairs])
        arrays = [np.empty(0, dtype=np.int32)] * len(texts)
        for prefix in (False, True):
            chosen = np.flatnonzero(prefixed == prefix).tolist()
            if chosen:
                flat, lengths = self._encode_flat(
                    self._processor(prefix), [texts[k] for k in chosen]
                )
                for k, ids in zip(chosen, np.split(flat, np.cumsum(lengths)[:-1]), strict=True):
                    arrays[k] = ids
        return np.concatenate(arrays), np.array([len(ids) for ids in arrays], dtype=np.int64)

    def _encode_flat(self, processor: Any, texts: Sequence[str]) -> tuple[Array, Array]:
        if sum(map(len, texts)) > ARRAY_LEN * len(texts) and not any(SPACE in t for t in texts):
            arrays = processor.encode(list(texts), num_threads=1, out_type="numpy")
            return np.concatenate(arrays), np.array([len(a) for a in arrays], dtype=np.int64)
        return flattened(self._encode(processor, texts))

    def _encode(self, processor: Any, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = processor.encode(list(texts), num_threads=1)
        if self._space_ids:
            for k, text in enumerate(texts):
                if SPACE in text:
                    ids[k] = self._encode_around_space_sign(processor, text)
        return ids

    def _encode_around_space_sign(self, processor: Any, text: str) -> list[int]:
        first, *others = re.split(SPACE, text)
        joined: list[int] = processor.encode(first, num_threads=1)
        for part in self._processor(prefix=False).encode(others, num_threads=1):
            joined = joined + self._space_ids + part
        return joined

    def _has_space_in_front(self, text: str, before: str) -> bool:
        """Whether the model must put a space in front of a text, given the sign before it.

        At a start it does as it always does. Within a document only where the space that stands
        there would be dropped from the end of one part and the start of the next.
        """
        if not before:
            return self._has_prefix
        return self._drops_spaces and (self._is_space(before) or self._is_space(text[:1]))

    def _is_space(self, sign: str) -> bool:
        normalize = self.processor.normalize
        return bool(normalize(f"a{sign}a") == normalize("a a"))

    def _processor(self, prefix: bool) -> Any:
        """The processor that puts a space in front of each text, or the one that does not."""
        return self.processor if prefix == self._has_prefix else self._other_processor

    @cached_property
    def _other_processor(self) -> Any:
        # Protocol buffers written one behind the other are read as one merged message. Field 3 of
        # the model is normalizer_spec, and field 3 of that is add_dummy_prefix.
        changed = self.model + bytes([0x1A, 2, 0x18, not self._has_prefix])
        return sentencepiece.SentencePieceProcessor(model_proto=changed)

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


def _known(id: int, piece: str) -> int | str:
    """A model's own id, or the name of what it has not."""
    return int(id) if id >= 0 else piece
