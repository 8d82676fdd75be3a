"""Prompts with an answer that is liked better and one that is liked less."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpt4o_lit.corpus.conversations import FORMS, form_of, spoken
from gpt4o_lit.corpus.documents import Skips
from gpt4o_lit.corpus.examples import (
    Encoded,
    Example,
    ExampleBuilder,
    Examples,
    TablesConfig,
    TooLong,
)
from gpt4o_lit.corpus.rows import Row
from gpt4o_lit.tokenizer import Message, Tokenizer, TokenizerRecipe, message_ids


@dataclass(frozen=True, kw_only=True)
class PreferencesConfig(TablesConfig):
    """Where preferences come from: rows with `chosen` and `rejected`, and what they answer.

    What they answer is `prompt`, a text or messages, or a conversation in a form that
    `ConversationsConfig` knows. An answer is a text, a message, or messages of which the last
    counts; where there is no prompt, those before it are what is answered.
    """

    system: str | None = None
    """What opens each conversation that has no system message of its own."""
    max_len: int = 512
    """Most pieces of a prompt and an answer, with the marks of their messages."""
    too_long: TooLong = "skip"
    """What to do with longer ones: stop and name it, leave it out and count it, or cut the answers'
    ends; a prompt that fills max_len by itself is left out and counted then too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_len < 8:
            raise ValueError(f"max_len ({self.max_len}) must be at least 8; set it to 512")

    @property
    def longest(self) -> int:
        return 2 * self.max_len


def prepare_preferences(
    config: PreferencesConfig,
    tokenizer: TokenizerRecipe,
    directory: Path | str,
    *,
    progress: bool = False,
) -> Examples:
    """The preferences in `directory`, made anew where they are missing or of something else; as
    `ExampleBuilder.prepare`. A source is prompt and chosen answer; a target is how many pieces the
    prompt has, then prompt and rejected answer."""
    return _PreferencesBuilder(config, progress).prepare(tokenizer, directory)


class _PreferencesBuilder(ExampleBuilder):
    what = "preferences"

    def example(self, row: Row, split: str) -> Example:
        values = row.values
        missing = {"chosen", "rejected"} - values.keys()
        if missing:
            raise ValueError(f"it has no column {sorted(missing)[0]!r}; rename the columns")
        chosen, rejected = (_messages(values[name]) for name in ("chosen", "rejected"))
        prompt = _prompt(values, chosen)
        if self.config.system and not any(message.role == "system" for message in prompt):
            prompt.insert(0, Message("system", self.config.system))
        if not any(message.role == "user" for message in prompt):
            raise ValueError("no user says anything that is answered; mend the row")
        answers = [each[-1].content for each in (chosen, rejected)]
        if not all(text.strip() for text in answers) or answers[0] == answers[1]:
            raise ValueError("its answers are empty or alike; delete the row")
        return Example([asdict(message) for message in prompt], answers, row.place)

    def key(self, example: Example) -> str:
        return "\n".join(message["content"] for message in example.source)

    def texts(self, example: Example) -> list[str]:
        return [*(message["content"] for message in example.source), *example.target]

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[list[Encoded]]:
        encoded = []
        for example in examples:
            messages = [Message(**message) for message in example.source]
            prompt = [id for message in messages for id in message_ids(tokenizer, message)]
            answers = [message_ids(tokenizer, Message("assistant", t)) for t in example.target]
            prompt.append(answers[0][0])  # the mark of who answers is told, not said
            chosen, rejected = ([*prompt, *answer[1:]] for answer in answers)
            most = self.config.max_len
            if self.config.too_long == "truncate" and len(prompt) < most:
                chosen, rejected = chosen[:most], rejected[:most]
            encoded.append([(chosen, [len(prompt), *rejected])])
        return encoded

    def limits(self) -> tuple[int, int | None]:
        return self.config.max_len, self.config.max_len + 1

    def _cut(self, example: Example, encoded: Encoded, skips: Skips) -> list[list[int]] | None:
        """As any; where a prompt leaves its answers no room, there is nothing to prefer."""
        prompt_len = encoded[1][0]
        if self.config.too_long == "truncate" and prompt_len >= self.config.max_len:
            skips.counts["prompt too long"] += 1
            return None
        return super()._cut(example, encoded, skips)


def _messages(answer: Any) -> list[Message]:
    """An answer in any of its forms, as messages of which the last is said by an assistant."""
    if isinstance(answer, str):
        return [Message("assistant", answer)]
    listed = [answer] if isinstance(answer, Mapping) else list(answer or [])
    keys = ("from", "value") if listed and "from" in listed[0] else ("role", "content")
    messages = spoken(listed, *keys)
    if not messages or messages[-1].role != "assistant":
        raise ValueError("an answer does not end with what an assistant says; mend the row")
    return messages


def _prompt(values: Mapping[str, Any], chosen: list[Message]) -> list[Message]:
    """What is answered."""
    prompt = values.get("prompt")
    if isinstance(prompt, str):
        return [Message("user", prompt), *chosen[:-1]]
    if prompt:
        return [*spoken(prompt, "role", "content"), *chosen[:-1]]
    if len(chosen) > 1:
        return chosen[:-1]
    return FORMS[form_of(values)][1](values)
