"""What tokens are called on axes and in tables."""

import codecs
from collections.abc import Sequence

from gpt4o_lit.tokenizer import Tokenizer

INSIDE = "·"
"""The label of a token that only begins a sign."""
VISIBLE = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}


class Labels:
    """The labels of a tokenizer's tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._piece = tokenizer.piece
        self._spellings, self._special = tokenizer.spellings, set(tokenizer.special_ids)

    def of(self, ids: Sequence[int]) -> list[str]:
        """Of a text's tokens: the signs that each completes, or the name of a special piece."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        found = []
        for id in ids:
            if id in self._special:
                found.append(self._piece(id))
                continue
            text = decoder.decode(self._spellings[id])
            found.append("".join(VISIBLE.get(sign, sign) for sign in text) or INSIDE)
        return found

    def of_one(self, id: int) -> str:
        """Of a token alone; a part of a sign has the name of its piece."""
        (found,) = self.of([id])
        return self._piece(id) if found == INSIDE else found
