"""UTF-8 bytes as tokens: nothing to train, nothing unknown."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from gpt4o_lit.tokenizer.tokenizer import (
    FIM,
    MASK,
    ROLES,
    SENTINELS,
    SPECIAL_PIECES,
    UNK,
    Array,
    check_ids,
    word_starts,
)

SPECIALS = tuple(piece for piece in SPECIAL_PIECES if piece != UNK)
IDS = {piece: 256 + k for k, piece in enumerate(SPECIALS)}


class ByteTokenizer:
    """Id k < 256 is byte k; the special pieces follow."""

    vocab_size = 256 + len(SPECIALS)
    pad_id, bos_id, eos_id, mask_id = 256, 257, 258, IDS[MASK]
    unk_id: int | None = None
    sentinel_ids = tuple(IDS[piece] for piece in SENTINELS)
    special_ids = tuple(IDS.values())
    fingerprint = "bytes-1"

    @property
    def role_ids(self) -> dict[str, int]:
        return {name: IDS[piece] for name, piece in ROLES.items()}

    @property
    def fim_ids(self) -> dict[str, int]:
        return {name: IDS[piece] for name, piece in FIM.items()}

    @property
    def spellings(self) -> list[bytes]:
        return [bytes([id]) if id < 256 else b"" for id in range(self.vocab_size)]

    @cached_property
    def token_bytes(self) -> Array:
        return (np.arange(self.vocab_size) < 256).astype(np.int32)

    @cached_property
    def starts_word(self) -> Array:
        ascii_starts = word_starts([chr(byte) for byte in range(128)])
        return np.concatenate([ascii_starts, np.zeros(self.vocab_size - 128, dtype=bool)])

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(text.encode()) for text in texts]

    def encode_flat(self, texts: Sequence[str], befores: Sequence[str] = ()) -> tuple[Array, Array]:
        encoded = [text.encode() for text in texts]
        flat = np.frombuffer(b"".join(encoded), dtype=np.uint8).astype(np.int32)
        return flat, np.array([len(one) for one in encoded], dtype=np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        plain = check_ids(ids, self.vocab_size)
        return bytes(id for id in plain if id < 256).decode(errors="replace")

    def piece(self, id: int) -> str:
        check_ids([id], self.vocab_size)
        return SPECIALS[id - 256] if id >= 256 else f"<0x{id:02X}>"

    def save(self, directory: Path | str) -> None:
        Path(directory).mkdir(parents=True, exist_ok=True)
        (Path(directory) / "tokenizer.json").write_text(json.dumps({"kind": "bytes"}))
