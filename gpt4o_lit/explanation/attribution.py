"""How much each token of a text speaks for an answer (integrated gradients, arXiv:1703.01365)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gpt4o_lit.model import Mask, Transformer

# B steps of the integral, T target tokens, S source tokens, D dim


@dataclass(frozen=True)
class Attribution:
    """What speaks for one token."""

    target_id: int
    """The token that is spoken for."""
    position: int
    """Where its score is read: the token before it, or its own place in an encoder."""
    tokens_T: Tensor
    """By token that the decoder, or an encoder alone, reads."""
    source_S: Tensor | None
    """By token of the source of an encoder-decoder."""
    difference: float
    """The target's log-probability less that of a text of nothing but `baseline_id`."""

    @property
    def missing(self) -> float:
        """What the sum of all attributions lacks of the difference; more steps make it smaller."""
        told = float(self.tokens_T.sum())
        told += 0.0 if self.source_S is None else float(self.source_S.sum())
        return self.difference - told


def attribute(
    transformer: Transformer,
    tokens_1T: Tensor,
    source_1S: Tensor | None = None,
    *,
    position: int = -1,
    target_id: int,
    baseline_id: int = 0,
    num_steps: int = 32,
    bidirectional: bool = False,
) -> Attribution:
    """What each token contributes to the log-probability of the target at a position.

    Args:
        baseline_id: Token that stands for no text.
        num_steps: Of the integral; more tell a truer sum.
        bidirectional: The tokens see one another both ways (prefix LM).

    Raises:
        ValueError: Captum is not installed.
    """
    try:
        from captum.attr import IntegratedGradients
    except ModuleNotFoundError as error:
        raise ValueError("attributions need Captum; pip install 'gpt4o-lit[explain]'") from error
    position %= tokens_1T.shape[1]

    def score(tokens_BTD: Tensor, source_BSD: Tensor | None = None) -> Tensor:
        prefix_BT = None
        if bidirectional:
            prefix_BT = torch.ones(tokens_BTD.shape[:2], dtype=torch.bool, device=tokens_BTD.device)
        hidden_BTD = _hidden(transformer, tokens_BTD, source_BSD, prefix_BT)
        logits_BV = transformer.head(hidden_BTD[:, position])
        return logits_BV.float().log_softmax(-1)[:, target_id]

    read = [tokens_1T] if source_1S is None else [tokens_1T, source_1S]
    with torch.no_grad():
        inputs = tuple(transformer.tokens(ids) for ids in read)
        nothing = tuple(transformer.tokens(torch.full_like(ids, baseline_id)) for ids in read)
        difference = float(score(*inputs) - score(*nothing))
    with torch.compiler.set_stance("force_eager"):
        parts = IntegratedGradients(score).attribute(
            inputs, nothing, n_steps=num_steps, internal_batch_size=8
        )
    sums = [part[0].sum(-1).detach() for part in parts]
    return Attribution(target_id, position, sums[0], sums[1] if len(sums) > 1 else None, difference)


def _hidden(
    transformer: Transformer,
    tokens_BTD: Tensor,
    source_BSD: Tensor | None,
    prefix_BT: Tensor | None,
) -> Tensor:
    """Final states of texts that are given as vectors: (B, T, D)."""
    if transformer.decoder is None:
        assert transformer.encoder is not None
        hidden_BTD: Tensor = transformer.encoder(tokens_BTD)
        return hidden_BTD
    if transformer.encoder is None:
        hidden_BTD = transformer.decoder(tokens_BTD, None, prefix_BT)
        return hidden_BTD
    memory_BSD = transformer.encoder(source_BSD)
    hidden_BTD = transformer.decoder(tokens_BTD, None, prefix_BT, memory_BSD, Mask())
    return hidden_BTD
