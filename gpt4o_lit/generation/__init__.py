"""Writing text with a trained network."""

from gpt4o_lit.generation.decode import PromptFormat, decode, fill
from gpt4o_lit.generation.sampling import SamplingConfig, sample
from gpt4o_lit.generation.write import generate, stream

__all__ = ["PromptFormat", "SamplingConfig", "decode", "fill", "generate", "sample", "stream"]
