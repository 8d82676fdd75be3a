"""What the network is asked, and what its answers cost."""

from gpt4o_lit.objectives.causal import CausalLM
from gpt4o_lit.objectives.loss import linear_cross_entropy, token_statistics
from gpt4o_lit.objectives.objective import IGNORED, PADDING, Example, Needs, Objective, Vocabulary

__all__ = [
    "IGNORED",
    "PADDING",
    "CausalLM",
    "Example",
    "Needs",
    "Objective",
    "Vocabulary",
    "linear_cross_entropy",
    "token_statistics",
]
