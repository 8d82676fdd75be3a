"""Conversations as tokens: each message between the mark of its role and that of its end."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gpt4o_lit.tokenizer import Message, Tokenizer, message_ids


@dataclass
class Conversation:
    """Messages so far; what does not fit into the context is forgotten from the oldest on."""

    tokenizer: Tokenizer
    max_seq_len: int
    """Tokens that the network reads at once."""
    messages: list[Message] = field(default_factory=list)
    """A system message, if any, comes first."""

    @property
    def end_id(self) -> int:
        """The token that ends a message."""
        return self.tokenizer.role_ids["end"]

    def instruct(self, system: str) -> None:
        """Set the system message; an empty one takes it away."""
        rest = [message for message in self.messages if message.role != "system"]
        self.messages = ([Message("system", system)] if system else []) + rest

    def reset(self) -> None:
        """Forget all but the system message."""
        self.messages = [message for message in self.messages if message.role == "system"]

    def prompt(self, room: int) -> tuple[list[int], int]:
        """Tokens up to where the assistant speaks, and how many messages they leave out.

        Args:
            room: Tokens that the answer may take.

        Raises:
            ValueError: the system message and the last one alone leave no such room.
        """
        system = [message for message in self.messages if message.role == "system"]
        rest = self.messages[len(system) :]
        parts = [message_ids(self.tokenizer, message) for message in rest]
        opening = [id for message in system for id in message_ids(self.tokenizer, message)]
        closing = [self.tokenizer.role_ids["assistant"]]
        left_out = 0
        while len(opening) + _length(parts[left_out:]) + len(closing) + room > self.max_seq_len:
            left_out += 1
            while left_out < len(rest) and rest[left_out].role != "user":
                left_out += 1  # an answer says little without its question
            if left_out >= len(rest):
                raise ValueError(
                    f"the message leaves no room for an answer of {room} tokens in a context of "
                    f"{self.max_seq_len}; shorten it or the system message"
                )
        return [*opening, *(id for part in parts[left_out:] for id in part), *closing], left_out


def _length(parts: Sequence[list[int]]) -> int:
    return sum(map(len, parts))
