"""What the network is asked, and what its answers cost."""

from gpt4o_lit.objectives.causal import CausalLM
from gpt4o_lit.objectives.chunks import VocabularyPart
from gpt4o_lit.objectives.distillation import Lesson, Readout, Teacher, distillation_loss
from gpt4o_lit.objectives.draws import Draws
from gpt4o_lit.objectives.loss import linear_cross_entropy, token_statistics
from gpt4o_lit.objectives.masked import MaskedLM
from gpt4o_lit.objectives.objective import (
    IGNORED,
    PADDING,
    Example,
    Lengths,
    Needs,
    Objective,
    Vocabulary,
)
from gpt4o_lit.objectives.preference import direct_preference_loss, row_log_likelihoods
from gpt4o_lit.objectives.prefix import PrefixLM
from gpt4o_lit.objectives.span_corruption import SpanCorruption

__all__ = [
    "IGNORED",
    "PADDING",
    "CausalLM",
    "Draws",
    "Example",
    "Lengths",
    "Lesson",
    "MaskedLM",
    "Needs",
    "Objective",
    "PrefixLM",
    "Readout",
    "SpanCorruption",
    "Teacher",
    "Vocabulary",
    "VocabularyPart",
    "direct_preference_loss",
    "distillation_loss",
    "linear_cross_entropy",
    "row_log_likelihoods",
    "token_statistics",
]
