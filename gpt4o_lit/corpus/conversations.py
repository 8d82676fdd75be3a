"""Conversations out of the forms in which they are published, and what in them is learned."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
from gpt4o_lit.tokenizer import Message, Role, Tokenizer, TokenizerRecipe, message_ids

Values = Mapping[str, Any]
SPEAKERS: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    # What an assistant asks a tool is its to say; what comes back is told to it.
    "function_call": "assistant",
    "observation": "user",
    "function": "user",
    "tool": "user",
}
"""Who is meant by the names that published conversations use."""


@dataclass(frozen=True, kw_only=True)
class ConversationsConfig(TablesConfig):
    """Where conversations come from; their form is told by their columns.

    Alpaca: instruction, input, output. ShareGPT: conversations of from and value. OpenAI: messages
    of role and content. Turns: a list of texts, user and assistant in turn. Each may have a column
    `system` too.
    """

    system: str | None = None
    """What opens each conversation that has no system message of its own."""
    max_len: int = 512
    """Most pieces of a conversation, with the marks of its messages."""
    too_long: TooLong = "truncate"
    """What to do with longer ones: stop and name it, leave it out and count it, or leave out its
    last messages and cut what is left; where no answer is left, leave it out and count it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_len < 8:
            raise ValueError(f"max_len ({self.max_len}) must be at least 8; set it to 512")

    @property
    def longest(self) -> int:
        return self.max_len


def read_alpaca(values: Values) -> list[Message]:
    """An instruction, perhaps with an input, and its output; `history` comes before it."""
    asked = [str(values["instruction"]), str(values.get("input") or "")]
    turns = [text for pair in values.get("history") or [] for text in pair]
    turns += ["\n".join(part for part in asked if part.strip()), str(values["output"])]
    return read_turns({"turns": turns})


def read_sharegpt(values: Values) -> list[Message]:
    """`conversations`, each of `from` and `value`."""
    return spoken(values["conversations"], "from", "value")


def read_messages(values: Values) -> list[Message]:
    """`messages`, each of `role` and `content`."""
    return spoken(values["messages"], "role", "content")


def read_turns(values: Values) -> list[Message]:
    """`turns`: what user and assistant say in turn."""
    roles: tuple[Role, Role] = ("user", "assistant")
    return [Message(roles[number % 2], str(text)) for number, text in enumerate(values["turns"])]


FORMS: dict[str, tuple[frozenset[str], Callable[[Values], list[Message]]]] = {
    "OpenAI messages": (frozenset({"messages"}), read_messages),
    "ShareGPT": (frozenset({"conversations"}), read_sharegpt),
    "Alpaca": (frozenset({"instruction", "output"}), read_alpaca),
    "turns": (frozenset({"turns"}), read_turns),
}
"""The columns by which each form is known, and what reads it."""


def form_of(values: Values) -> str:
    """The name of the form of a row.

    Raises:
        ValueError: it has the columns of none.
    """
    for name, (columns, _) in FORMS.items():
        if values.keys() >= columns:
            return name
    known = "; ".join(f"{name}: {', '.join(sorted(each))}" for name, (each, _) in FORMS.items())
    raise ValueError(
        f"its columns ({', '.join(values)}) are those of no form of conversations ({known}); "
        "rename them"
    )


def spoken(said: Any, speaker: str, content: str) -> list[Message]:
    """Messages out of a list of objects that name who speaks and what is said."""
    messages = []
    for each in said:
        if not isinstance(each, Mapping) or not {speaker, content} <= each.keys():
            raise ValueError(f"a message has no {speaker} and {content}; mend the row")
        role = SPEAKERS.get(str(each[speaker]).lower())
        if role is None:
            raise ValueError(
                f"a message is {speaker} {each[speaker]!r}, who is none of {', '.join(SPEAKERS)}; "
                "rename the speaker"
            )
        messages.append(Message(role, str(each[content] or "")))
    return messages


def prepare_conversations(
    config: ConversationsConfig,
    tokenizer: TokenizerRecipe,
    directory: Path | str,
    *,
    progress: bool = False,
) -> Examples:
    """The conversations in `directory`, made anew where they are missing or of something else; as
    `ExampleBuilder.prepare`. A target has a 1 for each piece of its source that is learned."""
    return _ConversationsBuilder(config, progress).prepare(tokenizer, directory)


def conversation_of(line: Mapping[str, Any]) -> list[Message]:
    """The messages of a line of `Examples.lines`."""
    return [Message(**message) for message in line["source"]]


class _ConversationsBuilder(ExampleBuilder):
    what = "conversations"

    def example(self, row: Row, split: str) -> Example:
        form = form_of(row.values)
        self._note(form, f"{row.place.rpartition(':')[0]}: conversations as {form} has them")
        messages = FORMS[form][1](row.values)
        messages = [message for message in messages if message.content.strip()]
        system = row.values.get("system") or self.config.system
        if system and not any(message.role == "system" for message in messages):
            messages.insert(0, Message("system", str(system)))
        if not any(message.role == "assistant" for message in messages):
            raise ValueError("no assistant says anything in it; delete the row")
        return Example([asdict(message) for message in messages], [], row.place)

    def key(self, example: Example) -> str:
        return "\n".join(message["content"] for message in example.source)

    def texts(self, example: Example) -> list[str]:
        return [message["content"] for message in example.source]

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[list[Encoded]]:
        return [
            [self._encode([Message(**message) for message in example.source], tokenizer)]
            for example in examples
        ]

    def limits(self) -> tuple[int, int | None]:
        return self.config.max_len, None

    def _cut(self, example: Example, encoded: Encoded, skips: Skips) -> list[list[int]] | None:
        """As any; where what is asked fills the room, there is no answer to learn."""
        if self.config.too_long == "truncate" and not any(encoded[1]):
            skips.counts["question too long"] += 1
            return None
        return super()._cut(example, encoded, skips)

    def _encode(self, messages: list[Message], tokenizer: Tokenizer) -> Encoded:
        """The pieces, and which of them are learned: what an assistant says, and its end."""
        pieces: list[int] = []
        learned: list[int] = []
        for message in messages:
            own = message_ids(tokenizer, message)
            says = int(message.role == "assistant")
            fits = len(pieces) + len(own) <= self.config.max_len or not any(learned)
            if self.config.too_long == "truncate" and not fits:
                break
            pieces += own
            learned += [0, *[says] * (len(own) - 1)]
        if self.config.too_long == "truncate":
            pieces, learned = pieces[: self.config.max_len], learned[: self.config.max_len]
        return pieces, learned
