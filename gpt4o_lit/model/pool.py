"""From the states of a text's pieces to scores of its classes."""

from typing import Literal

import torch
from torch import Tensor

from gpt4o_lit.model.token_types import token_types
from gpt4o_lit.model.transformer import Transformer

# B texts, T pieces, D dim, C classes

Pool = Literal["mean", "first", "last"]


def class_scores(
    network: Transformer, tokens_BT: Tensor, documents_BT: Tensor, pool: Pool, eos_id: int
) -> Tensor:
    """Scores of the classes of texts that are padded on the right: (B, C)."""
    scores_BC: Tensor = network.head(pooled(network, tokens_BT, documents_BT, pool, eos_id))
    return scores_BC


def pooled(
    network: Transformer, tokens_BT: Tensor, documents_BT: Tensor, pool: Pool, eos_id: int
) -> Tensor:
    """What the head reads of each text: (B, D); eos ends the first text of two."""
    types_BT = token_types(network, tokens_BT, eos_id)
    hidden_BTD = network.hidden(tokens_BT, documents_BT=documents_BT, types_BT=types_BT)
    real_BT = documents_BT >= 0
    if pool == "mean":
        weights_BT = real_BT.to(hidden_BTD.dtype) / real_BT.sum(1, keepdim=True)
        return (hidden_BTD * weights_BT[..., None]).sum(1)
    places_B = real_BT.sum(1) - 1 if pool == "last" else torch.zeros_like(tokens_BT[:, 0])
    return hidden_BTD[torch.arange(len(places_B), device=places_B.device), places_B]
