"""Hugging Face families with an encoder: BERT, T5 and Marian."""

from gpt4o_lit.interop.family import ACTIVATIONS, Family, Flat, both, both_of, stack_of
from gpt4o_lit.interop.fields import Field, Fields

T5_ACTIVATIONS = {
    "relu": "relu",
    "gated-gelu": "geglu_tanh",
    "gated-silu": "swiglu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "silu": "silu",
}

BERT = Family(
    model_type="bert",
    architecture="BertForMaskedLM",
    fields=(
        Field("vocab_size", ("vocab_size",), int),
        Field("max_position_embeddings", ("max_seq_len",), int),
        Field("hidden_size", ("encoder.dim",), int),
        Field("num_hidden_layers", ("encoder.num_layers",), int),
        Field("num_attention_heads", ("encoder.attention.num_heads",), int),
        Field("intermediate_size", ("encoder.feed_forward.ffn_dim",), int),
        Field("type_vocab_size", ("encoder.num_token_types",), int, 2),
        Field("layer_norm_eps", ("encoder.norm.eps",), float, 1e-12),
        Field("hidden_dropout_prob", ("encoder.dropout", "encoder.embedding_dropout"), float, 0.1),
        Field("attention_probs_dropout_prob", ("encoder.attention.dropout",), float, 0.1),
        Field("initializer_range", ("init_std",), float, 0.02),
        Field("tie_word_embeddings", ("tie_embeddings",), bool, True),
    ),
    ours=stack_of(
        "encoder",
        {
            "norm.kind": "layer",
            "norm.placement": "post",
            "position.kind": "learned",
            "attention.qkv_bias": True,
            "attention.output_bias": True,
            "feed_forward.bias": True,
            "feed_forward.activation": "gelu",
            "embedding_norm": True,
        },
    )
    | {"head_transform": True, "head_bias": True},
    must={
        "is_decoder": False,
        "add_cross_attention": False,
        "position_embedding_type": "absolute",
        "hidden_act": "gelu",  # their head has the activation of the blocks, ours has gelu
    },
    # They look up a type even where there is none, so at least one is written.
    write_rest=lambda flat: {"type_vocab_size": max(1, flat["encoder.num_token_types"])},
)


def read_t5(fields: Fields) -> Flat:
    """The decoder's layers, and whether the head is scaled (T5 1.0: yes, 1.1: no)."""
    tied = fields.take("tie_word_embeddings", bool, True)
    scaled = fields.take("scale_decoder_outputs", bool, tied)
    layers = fields.take("num_layers", int)
    return {
        "decoder.num_layers": fields.take("num_decoder_layers", int, None) or layers,
        "head_scale": fields.take("d_model", int) ** -0.5 if scaled else None,
        "tie_embeddings": tied,
    }


def write_t5(flat: Flat) -> Flat:
    """Version 4 scales the head where it is tied; version 5 has a field of its own."""
    return {
        "num_decoder_layers": flat["decoder.num_layers"],
        "scale_decoder_outputs": flat["head_scale"] is not None,
        "tie_word_embeddings": flat["tie_embeddings"],
    }


def read_marian(fields: Fields) -> Flat:
    """Nothing, but a decoder with a vocabulary of its own is refused."""
    size = fields.take("vocab_size", int)
    if fields.take("decoder_vocab_size", int, None) not in (None, size):
        fields.must_be("decoder_vocab_size", size)
    return {}


T5 = Family(
    model_type="t5",
    architecture="T5ForConditionalGeneration",
    fields=(
        Field("vocab_size", ("vocab_size",), int),
        Field("n_positions", ("max_seq_len",), int, 512),
        Field("d_model", both("dim"), int),
        Field("d_kv", both("attention.head_dim"), int),
        Field("d_ff", both("feed_forward.ffn_dim"), int),
        Field("num_layers", ("encoder.num_layers",), int),
        Field("num_heads", both("attention.num_heads"), int),
        Field("feed_forward_proj", both("feed_forward.activation"), str, "relu", T5_ACTIVATIONS),
        Field("relative_attention_num_buckets", both("position.num_buckets"), int, 32),
        Field("relative_attention_max_distance", both("position.max_distance"), int, 128),
        Field("layer_norm_epsilon", both("norm.eps"), float, 1e-6),
        Field(
            "dropout_rate",
            (
                *both("dropout"),
                *both("embedding_dropout"),
                *both("attention.dropout"),
                *both("feed_forward.dropout"),
            ),
            float,
            0.1,
        ),
    ),
    ours=both_of({"norm.kind": "rms", "position.kind": "relative", "attention.scale": 1.0}),
    must={"is_encoder_decoder": True, "is_decoder": False},
    writes={"is_encoder_decoder": True},
    ties_without_head=True,
    read_rest=read_t5,
    write_rest=write_t5,
)
MARIAN = Family(
    model_type="marian",
    architecture="MarianMTModel",
    fields=(
        Field("vocab_size", ("vocab_size",), int),
        Field("max_position_embeddings", ("max_seq_len",), int),
        Field("d_model", both("dim"), int),
        Field("encoder_layers", ("encoder.num_layers",), int),
        Field("decoder_layers", ("decoder.num_layers",), int),
        Field("encoder_attention_heads", ("encoder.attention.num_heads",), int),
        Field("decoder_attention_heads", ("decoder.attention.num_heads",), int),
        Field("encoder_ffn_dim", ("encoder.feed_forward.ffn_dim",), int),
        Field("decoder_ffn_dim", ("decoder.feed_forward.ffn_dim",), int),
        Field("activation_function", both("feed_forward.activation"), str, "gelu", ACTIVATIONS),
        Field("scale_embedding", both("scale_embedding"), bool, False),
        Field("dropout", (*both("dropout"), *both("embedding_dropout")), float, 0.1),
        Field("attention_dropout", both("attention.dropout"), float, 0.0),
        Field("activation_dropout", both("feed_forward.dropout"), float, 0.0),
        Field("init_std", ("init_std",), float, 0.02),
    ),
    ours=both_of(
        {
            "norm.kind": "layer",
            "norm.placement": "post",
            "position.kind": "sinusoidal",
            "attention.qkv_bias": True,
            "attention.output_bias": True,
            "feed_forward.bias": True,
        }
    )
    | {"head_bias": True, "tie_embeddings": True},
    must={
        "is_encoder_decoder": True,
        "is_decoder": False,
        "tie_word_embeddings": True,
        "share_encoder_decoder_embeddings": True,
        "normalize_before": False,
        "normalize_embedding": False,
        "add_final_layer_norm": False,
    },
    writes={"is_encoder_decoder": True},
    read_rest=read_marian,
)
