"""Writing text with a trained network."""

from gpt4o_lit.generation.beam import BeamConfig, Hypothesis, beam_search
from gpt4o_lit.generation.chat import Conversation
from gpt4o_lit.generation.constraint import Constraint, Pattern
from gpt4o_lit.generation.decode import decode
from gpt4o_lit.generation.fill import fill, gap_prompt
from gpt4o_lit.generation.prefill import Prompt, PromptFormat
from gpt4o_lit.generation.sampling import SamplingConfig, sample
from gpt4o_lit.generation.speculative import Draft, speculate
from gpt4o_lit.generation.write import generate, likeliest, search, stream

__all__ = [
    "BeamConfig",
    "Constraint",
    "Conversation",
    "Draft",
    "Hypothesis",
    "Pattern",
    "Prompt",
    "PromptFormat",
    "SamplingConfig",
    "beam_search",
    "decode",
    "fill",
    "gap_prompt",
    "generate",
    "likeliest",
    "sample",
    "search",
    "speculate",
    "stream",
]
