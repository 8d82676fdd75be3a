"""What is said in a conversation, and how it is written in pieces."""

from dataclasses import dataclass
from typing import Literal

from gpt4o_lit.tokenizer.tokenizer import Tokenizer

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """What somebody says."""

    role: Role
    content: str


def message_ids(tokenizer: Tokenizer, message: Message) -> list[int]:
    """`<|role|> content <|end|>`; no content can write these marks itself."""
    roles = tokenizer.role_ids
    return [roles[message.role], *tokenizer.encode(message.content), roles["end"]]
