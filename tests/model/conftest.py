"""Tiny networks of every make."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from gpt4o_lit.model import (
    AttentionConfig,
    PositionConfig,
    StackConfig,
    Transformer,
    TransformerConfig,
)

POSITIONS = ("rotary", "learned", "sinusoidal", "relative", "alibi", "none")
VOCAB = 50

Build = Callable[..., Transformer]


def stack(
    position: str = "rotary", attention: dict[str, Any] | None = None, **fields: Any
) -> StackConfig:
    return StackConfig(
        num_layers=2,
        dim=32,
        attention=AttentionConfig(num_heads=4, **(attention or {})),
        position=PositionConfig(kind=position),  # type: ignore[arg-type]
        **fields,
    )


def network(kind: str, position: str = "rotary", **fields: Any) -> Transformer:
    """A network in evaluation mode whose weights are large enough for differences to show."""
    make = stack(position, **fields)
    config = TransformerConfig(
        encoder=make if kind != "decoder" else None,
        decoder=make if kind != "encoder" else None,
        vocab_size=VOCAB,
        max_seq_len=64,
        init_std=0.2,
    )
    return Transformer(config).eval()


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(0, VOCAB, (2, 12))


@pytest.fixture
def source() -> torch.Tensor:
    return torch.randint(0, VOCAB, (2, 7))
