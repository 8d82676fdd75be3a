"""The families of Hugging Face that we read and write, the plainest first."""

from gpt4o_lit.interop.decoders import GPT2, LLAMA, MISTRAL, QWEN2, QWEN3
from gpt4o_lit.interop.encoders import BERT, MARIAN, T5

FAMILIES = {
    family.model_type: family for family in (GPT2, LLAMA, MISTRAL, QWEN2, QWEN3, BERT, T5, MARIAN)
}
