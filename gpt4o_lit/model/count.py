"""Parameters and floating-point operations, from a config alone."""

from gpt4o_lit.model.config import StackConfig, TransformerConfig


def count_parameters(config: TransformerConfig) -> dict[str, int]:
    """Parameters by kind, with `total` and `non_embedding` (without tokens and positions).

    Tied weights count once. Needs config.vocab_size.
    """
    assert config.vocab_size is not None, "count_parameters needs vocab_size"
    both = config.encoder is not None and config.decoder is not None
    counts = {"embedding": config.vocab_size * config.dim, "attention": 0, "feed_forward": 0}
    counts |= {"norm": 0, "position": 0, "head": 0}
    for stack, cross in ((config.encoder, False), (config.decoder, both)):
        if stack is not None:
            for kind, number in _count_stack(stack, cross, config.max_seq_len).items():
                counts[kind] += number
    if not config.ties_head:
        counts["head"] += config.num_outputs * config.dim
    if config.head_bias or config.num_classes is not None:
        counts["head"] += config.num_outputs
    if config.head_transform:
        counts["head"] += config.dim * (config.dim + 1) + _norm(config.output_stack)
    counts["total"] = sum(counts.values())
    counts["non_embedding"] = counts["total"] - counts["embedding"] - counts["position"]
    return counts


def flops_per_token(config: TransformerConfig, seq_len: int) -> float:
    """Training FLOPs per token where each stack reads `seq_len` tokens and all are asked for."""
    both = config.encoder is not None and config.decoder is not None
    source = seq_len if both else 0
    return training_flops(config, target=seq_len, asked=seq_len, source=source) / seq_len


def training_flops(
    config: TransformerConfig, *, target: int, asked: float, source: int = 0
) -> float:
    """Training FLOPs of one row: 6 per weight and token, 12 per head feature, query and key.

    As in PaLM's appendix B (arXiv:2204.02311), with the output matrix counted and the lookup of
    token vectors not; attention counts in full though half of it is masked.

    Args:
        config: The network, with its vocab_size.
        target: Tokens that the decoder reads, or the encoder where there is no decoder.
        asked: Of those, the ones that the output matrix is applied to.
        source: Tokens that the encoder of an encoder-decoder reads.
    """
    assert config.vocab_size is not None, "training_flops needs vocab_size"
    total = 6.0 * config.num_outputs * config.dim * asked
    if config.head_transform:
        total += 6.0 * config.dim**2 * target
    if config.encoder is not None:
        total += _self_flops(config.encoder, target if config.decoder is None else source)
    if config.decoder is not None:
        total += _self_flops(config.decoder, target)
    if config.encoder is not None and config.decoder is not None:
        total += _cross_flops(config.decoder, target, source)
    return total


def _self_flops(stack: StackConfig, length: int) -> float:
    """All of a stack but its cross-attention."""
    counts = _count_stack(stack, cross=False, max_seq_len=0)
    inner = stack.attention.num_heads * stack.head_dim
    weights = counts["attention"] + counts["feed_forward"]
    return 6.0 * weights * length + 12.0 * stack.num_layers * inner * length**2


def _cross_flops(stack: StackConfig, target: int, source: int) -> float:
    """Queries and output of the target, keys and values of the source, and their products."""
    inner, kv = (n * stack.head_dim for n in (stack.attention.num_heads, stack.attention.kv_heads))
    products = 6.0 * stack.dim * (2 * inner * target + 2 * kv * source)
    return stack.num_layers * (products + 12.0 * inner * target * source)


def _norm(stack: StackConfig) -> int:
    return stack.dim * (2 if stack.norm.kind == "layer" and stack.norm.bias else 1)


def _count_stack(stack: StackConfig, cross: bool, max_seq_len: int) -> dict[str, int]:
    dim, config, ffn = stack.dim, stack.attention, stack.feed_forward
    inner, kv = config.num_heads * stack.head_dim, config.kv_heads * stack.head_dim
    projections = dim * (inner + 2 * kv) + inner * dim
    projections += config.qkv_bias * (inner + 2 * kv) + config.output_bias * dim
    qk_norms = 2 * stack.head_dim if config.qk_norm else 0
    up = stack.ffn_dim * (2 if ffn.gated else 1)
    position = {
        "learned": max_seq_len * dim,
        "relative": stack.position.num_buckets * config.num_heads,
    }.get(stack.position.kind, 0)
    outer_norms = stack.has_final_norm + stack.embedding_norm
    return {
        "attention": stack.num_layers * projections * (2 if cross else 1),
        "feed_forward": stack.num_layers * (dim * up + stack.ffn_dim * dim + ffn.bias * (up + dim)),
        "norm": stack.num_layers
        * (_norm(stack) * (3 if cross else 2) + qk_norms * (2 if cross else 1))
        + outer_norms * _norm(stack),
        "position": position + stack.num_token_types * dim,
    }
