"""What every tokenizer can do, and the names of the special pieces that each of them has."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np

PAD, BOS, EOS, UNK, MASK = "<pad>", "<s>", "</s>", "<unk>", "<mask>"
SENTINELS = tuple(f"<extra_id_{k}>" for k in range(100))
ROLES = {name: f"<|{name}|>" for name in ("system", "user", "assistant", "end")}
FIM = {name: f"<|fim_{name}|>" for name in ("prefix", "suffix", "middle")}
SPECIAL_PIECES = (PAD, BOS, EOS, UNK, MASK, *SENTINELS, *ROLES.values(), *FIM.values())

Array = np.ndarray[Any, Any]


class Tokenizer(Protocol):
    """Text to ids and back; special ids never come out of `encode`, whatever the text holds."""

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""

    @property
    def pad_id(self) -> int: ...
    @property
    def bos_id(self) -> int: ...
    @property
    def eos_id(self) -> int: ...
    @property
    def unk_id(self) -> int | None: ...
    @property
    def mask_id(self) -> int: ...
    @property
    def sentinel_ids(self) -> tuple[int, ...]: ...
    @property
    def role_ids(self) -> dict[str, int]:
        """Ids of the chat marks `system`, `user`, `assistant` and `end`."""

    @property
    def fim_ids(self) -> dict[str, int]:
        """Ids of the marks `prefix`, `suffix` and `middle` of filling in the middle."""

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Every id that stands for no text, in rising order."""

    @property
    def spellings(self) -> list[bytes]:
        """The bytes of text that each id stands for; none for special ids."""

    @property
    def token_bytes(self) -> Array:
        """int32 (V,): bytes of text that each id stands for; 0 for special ids."""

    @property
    def starts_word(self) -> Array:
        """bool (V,): whether a word starts with this id (for whole-word masking)."""

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints encode every text alike."""

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone: no bos, no eos."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]: ...

    def encode_flat(self, texts: Sequence[str], befores: Sequence[str] = ()) -> tuple[Array, Array]:
        """All ids in one int32 array and the number of ids of each text (the fast way).

        `befores`, where given, holds for each text the sign in front of it, so that a document
        encoded in parts gives the ids of the whole; "" for a text that opens a document.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids; special ids stand for nothing, broken UTF-8 becomes U+FFFD."""

    def piece(self, id: int) -> str:
        """How the id is written in tables and logs."""

    def save(self, directory: Path | str) -> None:
        """Write all that `load_tokenizer` needs."""


class TextByText(ABC):
    """What follows from `encode` and `spellings` where no faster way is known."""

    @abstractmethod
    def encode(self, text: str) -> list[int]: ...

    @property
    @abstractmethod
    def spellings(self) -> list[bytes]: ...

    @cached_property
    def token_bytes(self) -> Array:
        return np.array([len(spelling) for spelling in self.spellings], dtype=np.int32)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def encode_flat(self, texts: Sequence[str], befores: Sequence[str] = ()) -> tuple[Array, Array]:
        return flattened(self.encode_batch(texts))


def flattened(ids: Sequence[Sequence[int]]) -> tuple[Array, Array]:
    """Many texts' ids one behind the other, int32, and how many each has, int64."""
    lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
    flat = np.fromiter(chain.from_iterable(ids), dtype=np.int32, count=int(lengths.sum()))
    return flat, lengths


def word_starts(pieces: Sequence[str]) -> Array:
    """True where a piece begins with anything but a letter or digit, or with a CJK sign."""
    return np.array([_opens_word(piece) for piece in pieces], dtype=bool)


def _opens_word(piece: str) -> bool:
    first = piece[:1]
    return bool(first) and (not first.isalnum() or "\u2e80" <= first <= "\u9fff")


def check_ids(ids: Sequence[int], vocab_size: int) -> list[int]:
    """The ids as a list of int; ValueError names the first that is not in the vocabulary."""
    plain = [int(id) for id in ids]
    for id in plain:
        if not 0 <= id < vocab_size:
            raise ValueError(
                f"id ({id}) must be in 0..{vocab_size - 1}; use this tokenizer's own ids"
            )
    return plain
