"""Decoders of Hugging Face: GPT-2, and Llama with its relatives."""

from gpt4o_lit.interop.family import ACTIVATIONS, Family, Flat, stack_of
from gpt4o_lit.interop.fields import Field, Fields

GATES = {"silu": "swiglu", "swish": "swiglu", "gelu": "geglu", "gelu_pytorch_tanh": "geglu_tanh"}
ROTARY_SCALINGS = {"default": "none", "linear": "linear", "llama3": "llama3"}

GPT2 = Family(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    fields=(
        Field("vocab_size", ("vocab_size",), int),
        Field("n_positions", ("max_seq_len",), int),
        Field("n_embd", ("decoder.dim",), int),
        Field("n_layer", ("decoder.num_layers",), int),
        Field("n_head", ("decoder.attention.num_heads",), int),
        Field("n_inner", ("decoder.feed_forward.ffn_dim",), int, None),
        Field(
            "activation_function",
            ("decoder.feed_forward.activation",),
            str,
            "gelu_new",
            {"gelu_new": "gelu_tanh", **ACTIVATIONS},
        ),
        Field("layer_norm_epsilon", ("decoder.norm.eps",), float, 1e-5),
        Field("embd_pdrop", ("decoder.embedding_dropout",), float, 0.1),
        Field("resid_pdrop", ("decoder.dropout",), float, 0.1),
        Field("attn_pdrop", ("decoder.attention.dropout",), float, 0.1),
        Field("initializer_range", ("init_std",), float, 0.02),
        Field("tie_word_embeddings", ("tie_embeddings",), bool, True),
    ),
    ours=stack_of(
        "decoder",
        {
            "norm.kind": "layer",
            "position.kind": "learned",
            "attention.qkv_bias": True,
            "attention.output_bias": True,
            "feed_forward.bias": True,
        },
    ),
    must={
        "add_cross_attention": False,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
    },
)


def read_rotary(fields: Fields) -> Flat:
    """Rotary positions, as version 5 (rope_parameters) or 4 (rope_theta, rope_scaling) has them."""
    inner = fields.values.get("rope_parameters") or fields.values.get("rope_scaling") or {}
    fields.check("rope_parameters", inner, dict)
    rope = Fields({"rope_type": inner.get("type", "default"), **inner}, fields.path)
    rope.must_be("partial_rotary_factor", 1.0)
    fields.must_be("partial_rotary_factor", 1.0)
    scaling = rope.word("rope_type", ROTARY_SCALINGS)
    theta = rope.take("rope_theta", float, fields.take("rope_theta", float, 10000.0))
    flat: Flat = {"theta": theta, "scaling": scaling}
    if scaling != "none":
        flat["scaling_factor"] = rope.take("factor", float)
    if scaling == "llama3":
        flat["low_freq_factor"] = rope.take("low_freq_factor", float)
        flat["high_freq_factor"] = rope.take("high_freq_factor", float)
        longest = fields.take("max_position_embeddings", int)
        flat["original_max_seq_len"] = rope.take("original_max_position_embeddings", int, longest)
    return stack_of("decoder.position", flat)


def write_rotary(flat: Flat) -> Flat:
    """The spelling of version 4, which version 5 reads too."""
    position = {path.rsplit(".", 1)[-1]: v for path, v in flat.items() if ".position." in path}
    if position["scaling"] == "none":
        return {"rope_theta": position["theta"], "rope_scaling": None}
    scaling = {"rope_type": position["scaling"], "factor": position["scaling_factor"]}
    if position["scaling"] == "llama3":
        scaling |= {
            "low_freq_factor": position["low_freq_factor"],
            "high_freq_factor": position["high_freq_factor"],
            "original_max_position_embeddings": position["original_max_seq_len"],
        }
    return {"rope_theta": position["theta"], "rope_scaling": scaling}


def write_llama(flat: Flat) -> Flat:
    """Llama refuses a dim that its heads do not divide; the head_dim shown then reveals it."""
    dim, num_heads = flat["decoder.dim"], flat["decoder.attention.num_heads"]
    head_dim = flat["decoder.attention.head_dim"] if dim % num_heads == 0 else dim // num_heads
    return write_rotary(flat) | {"head_dim": head_dim}


def read_qwen(fields: Fields) -> Flat:
    """Rotary positions, and a window where every layer has it."""
    flat = read_rotary(fields)
    if not fields.take("use_sliding_window", bool, False):
        return flat
    window = fields.take("sliding_window", int, 4096)
    num_layers = fields.take("num_hidden_layers", int)
    first = fields.take("max_window_layers", int, 28)
    kinds = fields.values.get("layer_types") or [
        "sliding_attention" if layer >= first else "full_attention" for layer in range(num_layers)
    ]
    if len(set(kinds)) > 1:
        raise fields.error(
            "layer_types", kinds, "is unsupported, all layers must be alike", "use another model"
        )
    return flat | ({"decoder.attention.window": window} if kinds[0] == "sliding_attention" else {})


def write_qwen(flat: Flat) -> Flat:
    """Rotary positions, and the window in every layer."""
    window, num_layers = flat["decoder.attention.window"], flat["decoder.num_layers"]
    kind = "full_attention" if window is None else "sliding_attention"
    return write_rotary(flat) | {
        "use_sliding_window": window is not None,
        "sliding_window": window,
        "max_window_layers": num_layers if window is None else 0,
        "layer_types": [kind] * num_layers,
    }


LLAMA_FIELDS = (
    Field("vocab_size", ("vocab_size",), int),
    Field("max_position_embeddings", ("max_seq_len",), int),
    Field("hidden_size", ("decoder.dim",), int),
    Field("num_hidden_layers", ("decoder.num_layers",), int),
    Field("num_attention_heads", ("decoder.attention.num_heads",), int),
    Field("intermediate_size", ("decoder.feed_forward.ffn_dim",), int),
    Field("hidden_act", ("decoder.feed_forward.activation",), str, "silu", GATES),
    Field("rms_norm_eps", ("decoder.norm.eps",), float, 1e-6),
    Field("attention_dropout", ("decoder.attention.dropout",), float, 0.0),
    Field("initializer_range", ("init_std",), float, 0.02),
    Field("tie_word_embeddings", ("tie_embeddings",), bool, False),
)
KV_HEADS = Field("num_key_value_heads", ("decoder.attention.num_kv_heads",), int, None)
HEAD_DIM = Field("head_dim", ("decoder.attention.head_dim",), int, None)
ATTENTION_BIAS = Field(
    "attention_bias",
    ("decoder.attention.qkv_bias", "decoder.attention.output_bias"),
    bool,
    False,
)
ROTARY = stack_of("decoder", {"norm.kind": "rms", "position.kind": "rotary"})

LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    fields=(
        *LLAMA_FIELDS,
        KV_HEADS,
        HEAD_DIM,
        ATTENTION_BIAS,
        Field("mlp_bias", ("decoder.feed_forward.bias",), bool, False),
    ),
    ours=ROTARY,
    read_rest=read_rotary,
    write_rest=write_llama,
)
MISTRAL = Family(
    model_type="mistral",
    architecture="MistralForCausalLM",
    fields=(
        *LLAMA_FIELDS,
        Field("num_key_value_heads", ("decoder.attention.num_kv_heads",), int, 8, null=True),
        HEAD_DIM,
        Field("sliding_window", ("decoder.attention.window",), int, 4096, null=True),
    ),
    ours=ROTARY,
    must={"layer_types": None},
    read_rest=read_rotary,
    write_rest=write_rotary,
)
QWEN2 = Family(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    fields=(*LLAMA_FIELDS, KV_HEADS, HEAD_DIM),
    ours=ROTARY | {"decoder.attention.qkv_bias": True},
    read_rest=read_qwen,
    write_rest=write_qwen,
)
QWEN3 = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    fields=(
        *LLAMA_FIELDS,
        KV_HEADS,
        Field("head_dim", ("decoder.attention.head_dim",), int, 128),
        ATTENTION_BIAS,
    ),
    ours=ROTARY | {"decoder.attention.qk_norm": True},
    read_rest=read_qwen,
    write_rest=write_qwen,
)
