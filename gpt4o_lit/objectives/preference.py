"""Learning which of two answers is liked better, without a model of reward.

Shapes: B preferences, N positions, D dim, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gpt4o_lit.objectives.objective import IGNORED

CHUNK = 1024
"""Positions whose logits exist at once."""


def row_log_likelihoods(
    features_BTD: Tensor,
    weight_VD: Tensor,
    targets_BT: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
) -> Tensor:
    """The log-likelihood of all targets of each row that are not ignored: (B,), in float32.

    Differentiable; logits are made in chunks, once more in the backward.
    """
    asked_BT = targets_BT != IGNORED
    rows_N = asked_BT.nonzero()[:, 0]
    features_ND, targets_N = features_BTD[asked_BT], targets_BT[asked_BT]
    parts = []
    for start in range(0, max(1, len(targets_N)), CHUNK):  # of nothing too: it has a gradient
        part = slice(start, start + CHUNK)
        parts.append(
            checkpoint(
                _log_likelihoods,
                features_ND[part],
                weight_VD,
                bias,
                softcap,
                targets_N[part],
                use_reentrant=False,
            )
        )
    sums_B = torch.zeros(len(targets_BT), device=features_BTD.device)
    return sums_B.index_add(0, rows_N, torch.cat(parts))


def _log_likelihoods(
    features_CD: Tensor,
    weight_VD: Tensor,
    bias: Tensor | None,
    softcap: float | None,
    targets_C: Tensor,
) -> Tensor:
    logits_CV = F.linear(features_CD, weight_VD, bias).float()
    if softcap is not None:
        logits_CV = softcap * torch.tanh(logits_CV / softcap)
    return -F.cross_entropy(logits_CV, targets_C, reduction="none")


def direct_preference_loss(
    policy_2B: Tensor, reference_2B: Tensor, beta: float, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """DPO (arXiv:2305.18290): -log sigmoid of beta times how much more the policy than the
    reference prefers the chosen answer.

    Args:
        policy_2B: Log-likelihoods of the chosen answers, then of the rejected ones.
        reference_2B: The same by the network that the policy began as.
        beta: How dear it is to leave the reference.
        label_smoothing: Share of the preferences that may be wrong (conservative DPO).

    Returns:
        The loss of each, (B,), and the margin of its rewards, (B,).
    """
    rewards_2B = beta * (policy_2B - reference_2B)
    chosen_B, rejected_B = rewards_2B.chunk(2)
    margin_B = chosen_B - rejected_B
    right_B, wrong_B = F.logsigmoid(margin_B), F.logsigmoid(-margin_B)
    return -(1 - label_smoothing) * right_B - label_smoothing * wrong_B, margin_B.detach()
