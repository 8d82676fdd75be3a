"""Names of tensors: ours on the left, Hugging Face's on the right, one table for each family."""

from dataclasses import dataclass, field

Table = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Names:
    """Their module for each of ours; a module's weight and bias follow it.

    Where one of ours is several of theirs, joined along the rows, blanks stand between them.
    """

    top: Table
    """Modules outside the blocks."""
    encoder: Table = field(default_factory=dict)
    """Modules of an encoder block; {} is its number."""
    decoder: Table = field(default_factory=dict)
    """Modules of a decoder block."""
    head_bias: str = ""
    """Their bias of the logits."""
    untied_head_bias: str = ""
    """The same, where the head has a matrix of its own. Default: head_bias."""
    row_vectors: tuple[str, ...] = ()
    """Vectors that are stored as matrices of one row."""
    transposed: bool = False
    """Whether the matrices of blocks are stored as (inputs, outputs), as GPT-2's Conv1D does."""
    prefix: str = ""
    """What files of the model without its head leave out of every name."""
    unread: tuple[str, ...] = ()
    """Patterns of tensors that a file may hold and that say nothing: copies, masks, tables."""

    @property
    def embedding(self) -> str:
        """Their tensor of token vectors."""
        return f"{self.top['tokens']}.weight"

    @property
    def head(self) -> str:
        """Their output matrix."""
        return f"{self.top['head']}.weight"

    def theirs(self, ours: str, tied: bool) -> list[str]:
        """Their tensors that make up one of ours."""
        if ours == "head.bias":
            return [self.head_bias if tied else self.untied_head_bias or self.head_bias]
        module, _, last = ours.rpartition(".")
        stack, *rest = module.split(".", 3)
        if rest and rest[0] == "blocks":
            table = self.encoder if stack == "encoder" else self.decoder
            return [f"{name}.{last}" for name in table[rest[2]].replace("{}", rest[1]).split()]
        return [f"{self.top[module]}.{last}"]


def under(prefix: str, table: Table) -> Table:
    """The table with a prefix before each of their names."""
    return {
        ours: " ".join(prefix + name for name in theirs.split()) for ours, theirs in table.items()
    }


LLAMA_BLOCK = under(
    "model.layers.{}.",
    {
        "attention_norm": "input_layernorm",
        "attention.qkv": "self_attn.q_proj self_attn.k_proj self_attn.v_proj",
        "attention.output": "self_attn.o_proj",
        "attention.q_norm": "self_attn.q_norm",
        "attention.k_norm": "self_attn.k_norm",
        "ffn_norm": "post_attention_layernorm",
        "feed_forward.gate_up": "mlp.gate_proj mlp.up_proj",
        "feed_forward.down": "mlp.down_proj",
    },
)
LLAMA = Names(
    top={
        "tokens": "model.embed_tokens",
        "decoder.norm": "model.norm",
        "head": "lm_head",
    },
    decoder=LLAMA_BLOCK,
    prefix="model.",
    unread=(r".*rotary_emb\.inv_freq",),
)
GPT2 = Names(
    top={
        "tokens": "transformer.wte",
        "decoder.positions": "transformer.wpe",
        "decoder.norm": "transformer.ln_f",
        "head": "lm_head",
    },
    decoder=under(
        "transformer.h.{}.",
        {
            "attention_norm": "ln_1",
            "attention.qkv": "attn.c_attn",
            "attention.output": "attn.c_proj",
            "ffn_norm": "ln_2",
            "feed_forward.up": "mlp.c_fc",
            "feed_forward.down": "mlp.c_proj",
        },
    ),
    transposed=True,
    prefix="transformer.",
    unread=(r".*\.attn\.(bias|masked_bias)",),
)
BERT = Names(
    top={
        "tokens": "bert.embeddings.word_embeddings",
        "encoder.positions": "bert.embeddings.position_embeddings",
        "encoder.token_types": "bert.embeddings.token_type_embeddings",
        "encoder.embedding_norm": "bert.embeddings.LayerNorm",
        "head.transform": "cls.predictions.transform.dense",
        "head.norm": "cls.predictions.transform.LayerNorm",
        "head": "cls.predictions.decoder",
    },
    encoder=under(
        "bert.encoder.layer.{}.",
        {
            "attention.qkv": "attention.self.query attention.self.key attention.self.value",
            "attention.output": "attention.output.dense",
            "attention_norm": "attention.output.LayerNorm",
            "feed_forward.up": "intermediate.dense",
            "feed_forward.down": "output.dense",
            "ffn_norm": "output.LayerNorm",
        },
    ),
    head_bias="cls.predictions.bias",
    untied_head_bias="cls.predictions.decoder.bias",
    prefix="bert.",
    unread=(
        r"bert\.pooler\..*",
        r"cls\.seq_relationship\..*",
        r"cls\.predictions\.(decoder\.)?bias",
        r"bert\.embeddings\.position_ids",
    ),
)


def t5_block(stack: str, feed_forward: int) -> Table:
    """A block of T5, whose sublayers are numbered; the encoder has no cross-attention."""
    table = {
        "attention_norm": "layer.0.layer_norm",
        "ffn_norm": f"layer.{feed_forward}.layer_norm",
        "feed_forward.down": f"layer.{feed_forward}.DenseReluDense.wo",
        "feed_forward.gate_up": (
            f"layer.{feed_forward}.DenseReluDense.wi_0 layer.{feed_forward}.DenseReluDense.wi_1"
        ),
        "feed_forward.up": f"layer.{feed_forward}.DenseReluDense.wi",
        "attention.qkv": "layer.0.SelfAttention.q layer.0.SelfAttention.k layer.0.SelfAttention.v",
        "attention.output": "layer.0.SelfAttention.o",
        "cross_attention_norm": "layer.1.layer_norm",
        "cross_attention.q": "layer.1.EncDecAttention.q",
        "cross_attention.kv": "layer.1.EncDecAttention.k layer.1.EncDecAttention.v",
        "cross_attention.output": "layer.1.EncDecAttention.o",
    }
    return under(stack + ".block.{}.", table)


T5_BIAS = "block.0.layer.0.SelfAttention.relative_attention_bias"
T5 = Names(
    top={
        "tokens": "shared",
        "encoder.bias": f"encoder.{T5_BIAS}",
        "decoder.bias": f"decoder.{T5_BIAS}",
        "encoder.norm": "encoder.final_layer_norm",
        "decoder.norm": "decoder.final_layer_norm",
        "head": "lm_head",
    },
    encoder=t5_block("encoder", 1),
    decoder=t5_block("decoder", 2),
    unread=(
        r"(encoder|decoder)\.embed_tokens\.weight",
        r".*EncDecAttention\.relative_attention_bias\.weight",
    ),
)


def marian_block(stack: str) -> Table:
    """A block of Marian; the encoder has no cross-attention."""
    table = {
        "attention_norm": "self_attn_layer_norm",
        "cross_attention_norm": "encoder_attn_layer_norm",
        "ffn_norm": "final_layer_norm",
        "feed_forward.up": "fc1",
        "feed_forward.down": "fc2",
        "attention.qkv": "self_attn.q_proj self_attn.k_proj self_attn.v_proj",
        "attention.output": "self_attn.out_proj",
        "cross_attention.q": "encoder_attn.q_proj",
        "cross_attention.kv": "encoder_attn.k_proj encoder_attn.v_proj",
        "cross_attention.output": "encoder_attn.out_proj",
    }
    return under(f"model.{stack}.layers.{{}}.", table)


MARIAN = Names(
    top={"tokens": "model.shared", "head": "lm_head"},
    encoder=marian_block("encoder"),
    decoder=marian_block("decoder"),
    head_bias="final_logits_bias",
    row_vectors=("final_logits_bias",),
    prefix="model.",
    unread=(
        r"model\.(encoder|decoder)\.embed_(tokens|positions)\.weight",
        r"(encoder|decoder)\.embed_(tokens|positions)\.weight",
    ),
)
NAMES = {
    "gpt2": GPT2,
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "bert": BERT,
    "t5": T5,
    "marian": MARIAN,
}
