"""What a Transformer is made of, as plain frozen data that YAML and checkpoints can hold."""

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

Activation = Literal["gelu", "gelu_tanh", "relu", "silu", "swiglu", "geglu", "geglu_tanh"]
Kernel = Literal["auto", "sdpa", "blocked", "eager", "flex"]
NormKind = Literal["rms", "layer"]
PositionKind = Literal["rotary", "learned", "sinusoidal", "relative", "alibi", "none"]

GATED = ("swiglu", "geglu", "geglu_tanh")


@dataclass(frozen=True, kw_only=True)
class PositionConfig:
    """How a stack knows the order of its tokens."""

    kind: PositionKind = "rotary"
    """Rotary (RoPE), learned or sinusoidal vectors, relative (T5's buckets), alibi, or none."""
    theta: float = 10000.0
    """Base wavelength of rotary and sinusoidal positions."""
    scaling: Literal["none", "linear", "llama3"] = "none"
    """How rotary wavelengths are stretched for texts longer than those of pretraining."""
    scaling_factor: float = 1.0
    """How many times longer (linear and llama3)."""
    low_freq_factor: float = 1.0
    """llama3: wavelengths beyond original_max_seq_len / low_freq_factor are stretched in full."""
    high_freq_factor: float = 4.0
    """llama3: wavelengths below original_max_seq_len / high_freq_factor are left alone."""
    original_max_seq_len: int = 8192
    """llama3: the longest text of pretraining."""
    num_buckets: int = 32
    """relative: distances share this many learned biases per head."""
    max_distance: int = 128
    """relative: all distances from here on share one bucket."""

    def __post_init__(self) -> None:
        _check_literals(self)
        _check_positive(self, "theta", "scaling_factor", "low_freq_factor", "original_max_seq_len")
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor ({self.high_freq_factor}) must be greater than "
                f"low_freq_factor ({self.low_freq_factor}); raise high_freq_factor"
            )
        if self.scaling != "none" and self.kind != "rotary":
            raise ValueError(
                f"scaling ({self.scaling}) stretches rotary positions only, but kind is "
                f"{self.kind}; set scaling to none"
            )
        if self.num_buckets < 4 or self.num_buckets % 4:
            raise ValueError(
                f"num_buckets ({self.num_buckets}) must be a positive multiple of 4 "
                "(two directions, near and far); set num_buckets to 32"
            )
        if self.max_distance <= self.num_buckets // 2:
            raise ValueError(
                f"max_distance ({self.max_distance}) must exceed half of num_buckets "
                f"({self.num_buckets}); raise max_distance"
            )


@dataclass(frozen=True, kw_only=True)
class NormConfig:
    """How activations are normalised, and where."""

    kind: NormKind = "rms"
    """RMS norm (scale only) or layer norm (centres too)."""
    placement: Literal["pre", "post"] = "pre"
    """Before each sublayer, or after each residual sum as in the first Transformer."""
    eps: float = 1e-5
    """Added to the variance against division by zero."""
    bias: bool = True
    """Layer norm: add a learned shift. RMS norm has none."""

    def __post_init__(self) -> None:
        _check_literals(self)
        _check_positive(self, "eps")


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Heads of attention and how they are computed."""

    num_heads: int
    """Query heads."""
    num_kv_heads: int | None = None
    """Key and value heads; the query heads share them in groups. Default: num_heads."""
    head_dim: int | None = None
    """Features of one head. Default: dim / num_heads."""
    window: int | None = None
    """Each token sees itself and the window - 1 nearest tokens a side. Default: all."""
    qk_norm: bool = False
    """RMS norm of each query and key head, before positions (Qwen3); in cross-attention too."""
    qkv_bias: bool = False
    """Biases in the query, key and value projections."""
    output_bias: bool = False
    """A bias in the output projection."""
    scale: float | None = None
    """Factor of query-key products. Default: 1 / sqrt(head_dim); T5 has 1.0."""
    dropout: float = 0.0
    """Share of attention weights dropped in training."""
    kernel: Kernel = "auto"
    """auto is blocked where a CPU trains, else sdpa; eager can return its weights; flex needs a GPU
    to train."""

    def __post_init__(self) -> None:
        _check_literals(self)
        _check_positive(self, "num_heads", "num_kv_heads", "head_dim", "window", "scale")
        _check_rates(self, "dropout")
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"num_heads ({self.num_heads}) must be a multiple of num_kv_heads "
                f"({self.num_kv_heads}); set num_kv_heads to a divisor"
            )
        if self.kernel == "flex" and self.dropout > 0:
            raise ValueError(
                f"kernel flex has no dropout, but dropout is {self.dropout}; "
                "set attention.dropout to 0 or kernel to auto"
            )

    @property
    def kv_heads(self) -> int:
        """Key and value heads with the default filled in."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads


@dataclass(frozen=True, kw_only=True)
class FeedForwardConfig:
    """The two (or three, when gated) matrices that work on each token alone."""

    ffn_dim: int | None = None
    """Inner width. Default: 4 * dim; gated: 8/3 * dim, rounded up to a multiple of 64."""
    activation: Activation = "swiglu"
    """gelu is exact, *_tanh approximate; swiglu, geglu and geglu_tanh have a gate."""
    bias: bool = False
    """Biases in every matrix."""
    dropout: float = 0.0
    """Share of inner activations dropped in training."""

    def __post_init__(self) -> None:
        _check_literals(self)
        _check_positive(self, "ffn_dim")
        _check_rates(self, "dropout")

    @property
    def gated(self) -> bool:
        """Whether a second projection multiplies the activation."""
        return self.activation in GATED

    def inner_dim(self, dim: int) -> int:
        """ffn_dim with the default filled in."""
        if self.ffn_dim is not None:
            return self.ffn_dim
        return -(-8 * dim // (3 * 64)) * 64 if self.gated else 4 * dim


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """A pile of equal blocks: an encoder or a decoder."""

    num_layers: int
    """Blocks."""
    dim: int
    """Features of a token between blocks."""
    attention: AttentionConfig
    """Self-attention; a decoder with an encoder has cross-attention of the same shape."""
    feed_forward: FeedForwardConfig = field(default_factory=FeedForwardConfig)
    """The feed-forward part of each block."""
    norm: NormConfig = field(default_factory=NormConfig)
    """Normalisation of the whole stack."""
    position: PositionConfig = field(default_factory=PositionConfig)
    """How the stack knows the order of tokens."""
    final_norm: bool | None = None
    """A norm after the last block. Default: yes for pre, no for post."""
    embedding_norm: bool = False
    """A norm over the embeddings (BERT)."""
    scale_embedding: bool = False
    """Multiply token vectors by sqrt(dim) (the first Transformer, Marian)."""
    num_token_types: int = 0
    """Rows of a token-type (segment) embedding; 0: none. BERT has 2: a first text and a second. A
    third is for pieces of the second that the first has too, a question say."""
    embedding_dropout: float = 0.0
    """Share of embedding features dropped in training."""
    dropout: float = 0.0
    """Share of each sublayer's output dropped in training, before the residual sum."""
    checkpointing: bool = False
    """Recompute each block in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        _check_positive(self, "num_layers", "dim")
        _check_rates(self, "embedding_dropout", "dropout")
        if self.num_token_types < 0:
            raise ValueError(
                f"num_token_types ({self.num_token_types}) must not be negative; set it to 0"
            )
        if self.attention.head_dim is None and self.dim % self.attention.num_heads:
            raise ValueError(
                f"dim ({self.dim}) must be a multiple of num_heads "
                f"({self.attention.num_heads}); change num_heads or set head_dim"
            )
        if self.position.kind == "rotary" and self.head_dim % 2:
            raise ValueError(
                f"head_dim ({self.head_dim}) must be even, for rotary positions turn pairs; "
                "set head_dim to an even number"
            )
        if self.position.kind == "sinusoidal" and self.dim % 2:
            raise ValueError(
                f"dim ({self.dim}) must be even for sinusoidal positions; set dim to an even number"
            )

    @property
    def head_dim(self) -> int:
        """Features of one head with the default filled in."""
        return self.attention.head_dim or self.dim // self.attention.num_heads

    @property
    def ffn_dim(self) -> int:
        """Inner width of the feed-forward part with the default filled in."""
        return self.feed_forward.inner_dim(self.dim)

    @property
    def has_final_norm(self) -> bool:
        """final_norm with the default filled in."""
        return self.norm.placement == "pre" if self.final_norm is None else self.final_norm


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """A network: give encoder, decoder or both; which ones you give decides what it is."""

    encoder: StackConfig | None = None
    """Sees in both directions."""
    decoder: StackConfig | None = None
    """Sees the past only, and the encoder's output where there is an encoder."""
    vocab_size: int | None = None
    """Pieces. Default: as many as the data's tokenizer has."""
    max_seq_len: int = 1024
    """Longest row; learned positions have one vector for each place."""
    tie_embeddings: bool = True
    """Use the token vectors as the output matrix too."""
    num_classes: int | None = None
    """Classes that the head scores by a matrix and a bias of its own. Default: it scores pieces."""
    head_transform: bool = False
    """A dense layer, gelu and norm before the output matrix (BERT)."""
    head_bias: bool = False
    """A bias for each piece of the vocabulary (BERT, Marian)."""
    head_scale: float | None = None
    """Factor of the features before the output matrix; tied T5 has dim ** -0.5."""
    logit_softcap: float | None = None
    """Squash logits to within this bound: softcap * tanh(logits / softcap)."""
    init_std: float = 0.02
    """Standard deviation of the initial weights."""

    def __post_init__(self) -> None:
        _check_positive(
            self, "vocab_size", "max_seq_len", "num_classes", "head_scale", "logit_softcap",
            "init_std",
        )  # fmt: skip
        if self.encoder and self.decoder and self.encoder.dim != self.decoder.dim:
            raise ValueError(
                f"decoder.dim ({self.decoder.dim}) must equal encoder.dim ({self.encoder.dim}), "
                "for they share the token vectors; set both to one number"
            )

    @property
    def has_stacks(self) -> bool:
        """Whether this describes a network, and is not just the default that describes none."""
        return self.encoder is not None or self.decoder is not None

    @property
    def kind(self) -> Literal["decoder", "encoder", "encoder_decoder", "none"]:
        """Which stacks there are."""
        if self.encoder is not None:
            return "encoder" if self.decoder is None else "encoder_decoder"
        return "none" if self.decoder is None else "decoder"

    @property
    def ties_head(self) -> bool:
        """Whether the output matrix is that of the token vectors."""
        return self.tie_embeddings and self.num_classes is None

    @property
    def num_outputs(self) -> int:
        """What the head scores: classes, or pieces."""
        outputs = self.num_classes or self.vocab_size
        assert outputs is not None, "num_outputs needs vocab_size"
        return outputs

    @property
    def output_stack(self) -> StackConfig:
        """The stack that the head reads."""
        stack = self.decoder or self.encoder
        assert stack is not None
        return stack

    @property
    def dim(self) -> int:
        """Features of a token."""
        return self.output_stack.dim

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, strings and numbers, for checkpoints, JSON and YAML."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TransformerConfig":
        """Build from what to_dict wrote or a YAML file holds; unknown fields raise ValueError."""
        return _build(cls, values, "")


def _build(cls: type, values: Any, path: str) -> Any:
    if dataclasses.is_dataclass(values):
        return values
    if not isinstance(values, dict):
        raise ValueError(f"{path or 'config'} ({values!r}) must be a mapping of fields; write one")
    hints = typing.get_type_hints(cls)
    for name in values:
        if name not in hints:
            raise ValueError(
                f"{path}{name} is no field of {cls.__name__}; choose from {', '.join(hints)}"
            )
    for each in dataclasses.fields(cls):
        missing = each.default is dataclasses.MISSING is each.default_factory
        if missing and each.name not in values:
            raise ValueError(f"{path}{each.name} is missing and has no default; set it")
    built = {name: _convert(hints[name], value, f"{path}{name}") for name, value in values.items()}
    return cls(**built)


def _convert(hint: Any, value: Any, path: str) -> Any:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    choices = typing.get_args(hint) if union else (hint,)
    for choice in choices:
        if dataclasses.is_dataclass(choice) and value is not None:
            assert isinstance(choice, type)
            return _build(choice, value, f"{path}.")
    if float in choices and isinstance(value, str):  # YAML 1.1 reads 1e-5 as a string
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"{path} ({value!r}) must be a number; write one") from None
    return value


def _check_literals(config: Any) -> None:
    for name, hint in typing.get_type_hints(type(config)).items():
        choices = typing.get_args(hint)
        if typing.get_origin(hint) is Literal and getattr(config, name) not in choices:
            raise ValueError(
                f"{name} ({getattr(config, name)!r}) is unknown; choose from {', '.join(choices)}"
            )


def _check_positive(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise ValueError(f"{name} ({value}) must be positive; set it above 0")


def _check_rates(config: Any, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(
                f"{name} ({getattr(config, name)}) must be at least 0 and below 1; set it to 0.1"
            )
