"""Writing text with a trained network."""

from gpt4o_lit.generation.decode import decode, fill, generate, stream
from gpt4o_lit.generation.sampling import SamplingConfig, sample

__all__ = ["SamplingConfig", "decode", "fill", "generate", "sample", "stream"]
