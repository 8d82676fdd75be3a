"""Tiny random models of Hugging Face, one for each thing that a family can do."""

from collections.abc import Callable

import torch
import transformers
from torch import nn

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,  # wavelengths 6, 20, 63, 199: below, between and beyond the two limits
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0}
WINDOWED = {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 0}
GPT2 = {"vocab_size": 61, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
T5 = {
    "vocab_size": 61,
    "d_model": 32,
    "d_kv": 12,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 10,
}
MARIAN = {
    "vocab_size": 61,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 60,
    "decoder_start_token_id": 60,
    "scale_embedding": True,
    "activation_function": "swish",
}
hf = transformers
DECODERS: dict[str, Callable[[], nn.Module]] = {
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**GPT2)),
    "gpt2-untied-relu": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(**GPT2, n_inner=40, activation_function="relu", tie_word_embeddings=False)
    ),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**GROUPED)),
    "llama-tied-bias": lambda: hf.LlamaForCausalLM(
        hf.LlamaConfig(**SIZES, tie_word_embeddings=True, attention_bias=True, mlp_bias=True)
    ),
    "llama-llama3": lambda: hf.LlamaForCausalLM(
        hf.LlamaConfig(**GROUPED, rope_parameters=dict(LLAMA3))
    ),
    "llama-linear-geglu": lambda: hf.LlamaForCausalLM(
        hf.LlamaConfig(**GROUPED, rope_parameters=dict(LINEAR), hidden_act="gelu")
    ),
    "mistral-window": lambda: hf.MistralForCausalLM(
        hf.MistralConfig(**GROUPED, sliding_window=4, head_dim=12)
    ),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**GROUPED, sliding_window=None)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**GROUPED, tie_word_embeddings=True)),
    "qwen2-window": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**GROUPED, **WINDOWED)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**GROUPED, head_dim=16)),
}
ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "bert": lambda: hf.BertForMaskedLM(hf.BertConfig(**SIZES)),
    "bert-untied": lambda: hf.BertForMaskedLM(hf.BertConfig(**SIZES, tie_word_embeddings=False)),
}
PAIRS: dict[str, Callable[[], nn.Module]] = {
    "t5": lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5)),
    "t5-gated": lambda: hf.T5ForConditionalGeneration(
        hf.T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    ),
    "t5-gated-untied": lambda: untied(
        hf.T5ForConditionalGeneration(
            hf.T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
        )
    ),
    "marian": lambda: hf.MarianMTModel(hf.MarianConfig(**MARIAN)),
}
MODELS = DECODERS | ENCODERS | PAIRS


def untied(model: nn.Module) -> nn.Module:
    """T5 1.1 has a head of its own, though version 5 of transformers ties every new model."""
    model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight))
    model.config.tie_word_embeddings = False
    return model


def make(name: str, seed: int = 0) -> nn.Module:
    """A model whose every tensor, norms and biases too, is random."""
    torch.manual_seed(seed)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for path, tensor in [*model.named_parameters(), ("bias", bias_of(model))]:
            if tensor is None or "embed_positions" in path:
                continue
            noise = torch.randn_like(tensor)
            tensor.copy_(0.15 * noise + (tensor.dim() == 1 and "bias" not in path))
    return model


def bias_of(model: nn.Module) -> torch.Tensor | None:
    """Marian's bias of the logits, which is a buffer."""
    bias: torch.Tensor | None = getattr(model, "final_logits_bias", None)
    return bias
