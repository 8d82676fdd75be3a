"""What the network would say after each layer (logit lens)."""

from dataclasses import dataclass

import torch

from gpt4o_lit.explanation.labels import Labels
from gpt4o_lit.explanation.record import Record
from gpt4o_lit.model import Transformer
from gpt4o_lit.tokenizer import Tokenizer


@dataclass(frozen=True)
class Guess:
    """A piece and how likely it is."""

    piece: str
    probability: float


@torch.inference_mode()
def logit_lens(
    transformer: Transformer, tokenizer: Tokenizer, found: Record, count: int = 3
) -> list[list[list[Guess]]]:
    """By layer and token, the likeliest pieces: the embedding is layer 0, the last the answer.

    Each layer's states go through the final norm and the head, as the last one's do; for a decoder
    they tell of the next token, for an encoder of the one that stands there.
    """
    stack = transformer.decoder or transformer.encoder
    assert stack is not None
    states = found.states["decoder" if transformer.decoder is not None else "encoder"]
    layers, names = [], Labels(tokenizer)
    for hidden_TD in states:
        normed_TD = hidden_TD if stack.norm is None else stack.norm(hidden_TD)
        likely_TV = transformer.head(normed_TD).float().softmax(-1)[:, : tokenizer.vocab_size]
        best = likely_TV.topk(min(count, likely_TV.shape[-1]))
        layers.append(
            [
                [Guess(names.of_one(id), p) for id, p in zip(ids, ps, strict=True)]
                for ids, ps in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
        )
    return layers
