"""A TransformerConfig as one flat table of paths, with defaults filled in."""

import math
from typing import Any

from gpt4o_lit.model import StackConfig, TransformerConfig
from gpt4o_lit.model.config import PositionConfig

TRAINING_ONLY = ("dropout", "kernel", "checkpointing", "init_std")
"""Last words of paths that change training or speed, never what is computed."""

_POSITION_FIELDS = {
    "rotary": {"theta", "scaling"},
    "sinusoidal": {"theta"},
    "relative": {"num_buckets", "max_distance"},
}
_SCALING_FIELDS = {
    "none": set(),
    "linear": {"scaling_factor"},
    "llama3": {
        "scaling_factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_seq_len",
    },
}


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts to paths: {"a": {"b": 1}} to {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def nest(flat: dict[str, Any]) -> dict[str, Any]:
    """The reverse of flatten."""
    values: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, name = path.split(".")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return values


def resolve(config: TransformerConfig) -> dict[str, Any]:
    """The flat table with defaults filled in and fields without effect at their defaults."""
    flat = flatten(config.to_dict())
    for name, stack in (("encoder", config.encoder), ("decoder", config.decoder)):
        if stack is not None:
            flat |= {f"{name}.{path}": value for path, value in _resolve_stack(stack).items()}
    return flat


def _resolve_stack(stack: StackConfig) -> dict[str, Any]:
    scale = stack.attention.scale
    plain = scale is None or math.isclose(scale, stack.head_dim**-0.5)
    table = {
        "attention.num_kv_heads": stack.attention.kv_heads,
        "attention.head_dim": stack.head_dim,
        "attention.scale": None if plain else scale,
        "feed_forward.ffn_dim": stack.ffn_dim,
        "final_norm": stack.has_final_norm,
    }
    if stack.norm.kind == "rms":
        table["norm.bias"] = True
    position = stack.position
    used = {"kind", *_POSITION_FIELDS.get(position.kind, ())}
    if position.kind == "rotary":
        used |= _SCALING_FIELDS[position.scaling]
    for name, default in vars(PositionConfig()).items():
        table[f"position.{name}"] = getattr(position, name) if name in used else default
    return table


def is_training_only(path: str) -> bool:
    """Whether a path says how to train, not what to compute."""
    return path.rsplit(".", 1)[-1].endswith(TRAINING_ONLY)
