"""Writing text with a trained network."""

from gpt4o_lit.generation.decode import decode, fill
from gpt4o_lit.generation.sampling import SamplingConfig, sample
from gpt4o_lit.generation.write import generate, stream

__all__ = ["SamplingConfig", "decode", "fill", "generate", "sample", "stream"]
