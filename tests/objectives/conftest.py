"""A made-up vocabulary and packed windows of it."""

import pytest
import torch
from torch import Tensor

from gpt4o_lit.objectives import Vocabulary

VOCAB_SIZE = 150


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary(
        size=VOCAB_SIZE,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        mask_id=3,
        fim_ids={"prefix": 4, "suffix": 5, "middle": 6},
        sentinel_ids=tuple(range(VOCAB_SIZE - 1, VOCAB_SIZE - 41, -1)),
        special_ids=(*range(7), *range(VOCAB_SIZE - 40, VOCAB_SIZE)),
        starts_word=torch.arange(VOCAB_SIZE) % 3 == 0,
    )


@pytest.fixture
def windows() -> tuple[Tensor, Tensor]:
    """(B, T + 1) tokens and documents: short and long documents with bos and eos, some padding."""
    generator = torch.Generator().manual_seed(7)
    rows, homes = [], []
    for row in range(16):
        tokens: list[int] = []
        documents: list[int] = []
        number = 0
        while len(tokens) < 97:
            length = int(torch.randint(0, (3, 12, 60, 200)[row % 4], (1,), generator=generator))
            body = torch.randint(7, VOCAB_SIZE - 40, (length,), generator=generator).tolist()
            tokens += [1, *body, 2]
            documents += [number] * (length + 2)
            number += 1
        tokens, documents = tokens[row % 5 :][:97], documents[row % 5 :][:97]
        if row % 3 == 0:
            tokens[80:], documents[80:] = [0] * len(tokens[80:]), [-1] * len(tokens[80:])
        tokens += [0] * (97 - len(tokens))
        documents += [-1] * (97 - len(documents))
        rows.append(tokens)
        homes.append(documents)
    return torch.tensor(rows), torch.tensor(homes)
