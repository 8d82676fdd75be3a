"""How well a tokenizer fits files: bytes per token and what has no piece of its own."""

from dataclasses import dataclass

import numpy as np

from gpt4o_lit.corpus.documents import Skips, read_documents
from gpt4o_lit.corpus.encode import encode_text, last_sign
from gpt4o_lit.corpus.sources import list_files
from gpt4o_lit.tokenizer import SentencePieceTokenizer, Tokenizer


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Counts of one file."""

    name: str
    num_bytes: int
    num_tokens: int
    num_unknown: int
    num_byte_pieces: int

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of text for each token; more is better."""
        return self.num_bytes / max(1, self.num_tokens)

    @property
    def unknown_rate(self) -> float:
        """Share of tokens that are the unknown piece."""
        return self.num_unknown / max(1, self.num_tokens)

    @property
    def byte_rate(self) -> float:
        """Share of tokens that stand in for a sign without a piece."""
        return self.num_byte_pieces / max(1, self.num_tokens)


def measure(
    tokenizer: Tokenizer, sources: list[str], skips: Skips, text_field: str = "text"
) -> list[Measure]:
    """One Measure for each file of the sources; `skips` has its say on what cannot be read."""
    is_byte = np.zeros(tokenizer.vocab_size, dtype=bool)
    if isinstance(tokenizer, SentencePieceTokenizer):
        is_byte[:] = [tokenizer.is_byte(id) for id in range(tokenizer.vocab_size)]
    rows = []
    for file in list_files({"": sources}):
        counts = np.zeros(4, dtype=np.int64)
        for document in read_documents(file, "file", text_field, skips, lambda _: None):
            before = ""
            for text in document.pieces():
                ids = encode_text(text, before, tokenizer)
                before = last_sign(text, len(text))
                unknown = 0 if tokenizer.unk_id is None else int((ids == tokenizer.unk_id).sum())
                counts += (len(text), len(ids), unknown, int(is_byte[ids].sum()))
        num_bytes, num_tokens, num_unknown, num_byte_pieces = map(int, counts)
        rows.append(
            Measure(
                name=file.name,
                num_bytes=num_bytes,
                num_tokens=num_tokens,
                num_unknown=num_unknown,
                num_byte_pieces=num_byte_pieces,
            )
        )
    return rows
