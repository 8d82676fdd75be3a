"""Texts held to a regular expression or a JSON schema, by llguidance."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from gpt4o_lit.tokenizer import Tokenizer

# B rows, V vocab


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """What a whole text must match; one of these."""

    regex: str | None = None
    """A regular expression, without anchors."""
    json_schema: str | None = None
    """A JSON schema, as JSON."""

    def __post_init__(self) -> None:
        if (self.regex is None) == (self.json_schema is None):
            raise ValueError("give either a regex or a json_schema")


class Constraint:
    """A pattern for the pieces of one tokenizer.

    Raises:
        ValueError: the pattern is broken or uses what llguidance lacks, or it is not installed.
    """

    def __init__(self, tokenizer: Tokenizer, pattern: Pattern) -> None:
        try:
            import llguidance
        except ModuleNotFoundError as error:
            raise ValueError(
                "regex and json_schema need llguidance; pip install 'gpt4o-lit[constraint]'"
            ) from error
        kind = "regex" if pattern.regex is not None else "json_schema"
        self.vocab_size, self.eos_id = tokenizer.vocab_size, tokenizer.eos_id
        self._library, self._grammar = llguidance, _grammar(llguidance, pattern)
        wrapper = llguidance.TokenizerWrapper(_Spelled(tokenizer))
        self._tokenizer = llguidance.LLTokenizer(wrapper, n_vocab=self.vocab_size)
        if fault := llguidance.LLMatcher.validate_grammar(self._grammar, self._tokenizer):
            raise ValueError(f"{kind} cannot be used ({' '.join(fault.split())}); mend it")

    def start(self) -> "Matcher":
        """The state before the first token."""
        matcher = self._library.LLMatcher(self._tokenizer, self._grammar, log_level=0)
        return Matcher(self, matcher)

    def is_met(self, ids: Sequence[int]) -> bool:
        """Whether these tokens are a whole text of it."""
        matcher = self.start()
        return matcher.read(ids) and matcher.may_end


class Matcher:
    """How far one text has come."""

    def __init__(self, constraint: Constraint, matcher: Any) -> None:
        self._constraint, self._matcher = constraint, matcher

    def allowed(self) -> Tensor:
        """Which tokens may follow, eos among them where the text may end: bool (V,)."""
        if self._matcher.is_stopped():
            return torch.arange(self._constraint.vocab_size) == self._constraint.eos_id
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[: self._constraint.vocab_size]
        return torch.from_numpy(allowed.astype(bool))

    def read(self, ids: Sequence[int]) -> bool:
        """Go on behind these tokens; False where one of them is not allowed."""
        if self._matcher.is_stopped():  # the text has ended
            return set(ids) <= {self._constraint.eos_id}
        return bool(self._matcher.consume_tokens(list(ids)))

    @property
    def may_end(self) -> bool:
        """Whether the text so far is whole."""
        return bool(self._matcher.is_accepting())

    def copy(self) -> Self:
        """A state of its own that has read the same (beam search)."""
        return type(self)(self._constraint, self._matcher.deep_copy())


class _Spelled:
    """A tokenizer as llguidance asks for one."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.eos_token_id, self.bos_token_id = tokenizer.eos_id, tokenizer.bos_id
        self.tokens = tokenizer.spellings
        self.special_token_ids = list(tokenizer.special_ids)
        self._encode = tokenizer.encode

    def __call__(self, text: bytes) -> list[int]:
        return self._encode(text.decode(errors="replace"))


def _grammar(library: Any, pattern: Pattern) -> str:
    if pattern.regex is not None:
        return str(library.LLMatcher.grammar_from_regex(pattern.regex))
    try:
        schema = json.loads(pattern.json_schema or "")
    except json.JSONDecodeError as error:
        raise ValueError(f"json_schema is broken JSON ({error}); mend it") from error
    return str(library.LLMatcher.grammar_from_json_schema(schema))
