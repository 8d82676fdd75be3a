"""What each strategy leaves on a device, and what it sends."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from gpt4o_lit.model import StackConfig, TransformerConfig
from gpt4o_lit.model.count import count_parameters


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """How weights, gradients and optimizer lie on the devices (ZeRO, arXiv:1910.02054)."""

    weights: bool = False
    """In parts, as the next two."""
    gradients: bool = False
    optimizer: bool = False
    gathers: Literal["nothing", "blocks", "all"] = "nothing"
    """Of weights in parts, what is whole at once: two blocks and what is outside them, or all."""
    sends: float = 0.0
    """Times the weights that a device sends or gets in a micro-batch."""
    buckets: float = 0.0
    """Parameters, at most, that lie in buffers on their way."""
    masters: bool = False
    """Weights and gradients are of the products' type, and float32 masters with the optimizer."""
    offload: Literal["nothing", "optimizer", "all"] = "nothing"
    """What lies in the memory of the CPU: optimizer and masters, or every part."""
    replicated: bool = False
    """Several groups of devices hold what one holds in parts (HSDP, arXiv:2304.11277)."""
    tensor: bool = False
    """Matrices are split instead of the batch (arXiv:1909.08053)."""

    @property
    def needs_parts(self) -> bool:
        """Whether an optimizer that looks at whole matrices cannot be had."""
        return self.weights or self.optimizer or self.tensor

    def mesh(self, devices: int, replicas: int, tensor: int) -> "Mesh":
        """How so many devices stand; the other two are used by what has both parts and groups.

        Raises:
            ValueError: they do not divide them.
        """
        if not self.replicated:
            replicas = 1
        if not self.tensor:
            tensor = 1
        elif not self.weights:
            tensor = devices
        if devices % (replicas * tensor):
            name = "replicas" if self.replicated else "size of the groups"
            raise ValueError(
                f"devices ({devices}) must be a multiple of the {name} ({replicas * tensor}); "
                "change --devices or the strategy's init_args"
            )
        return Mesh(replicas=replicas, parts=devices // (replicas * tensor), tensor=tensor)


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Devices of a run, whose number is the product of these."""

    replicas: int
    """Groups that hold the whole network."""
    parts: int
    """Devices over which a group shares out what is in parts."""
    tensor: int
    """Devices that split matrices among them and read the same batch."""

    @property
    def readers(self) -> int:
        """Batches that are read at once."""
        return self.replicas * self.parts


_DEEPSPEED_BUCKETS = 1e8  # twice the bucket_size of our DeepSpeed, for sums and for gathering
_FSDP2 = Strategy(weights=True, gradients=True, optimizer=True, gathers="blocks", sends=3)
_ZERO1 = Strategy(optimizer=True, masters=True, sends=2, buckets=_DEEPSPEED_BUCKETS)
_ZERO2 = replace(_ZERO1, gradients=True)
_ZERO3 = replace(_ZERO2, weights=True, gathers="blocks", sends=3)

STRATEGIES = {
    "one": Strategy(),
    "ddp": Strategy(sends=2, buckets=float("inf")),
    "fsdp2": _FSDP2,
    "fsdp2 zero-2": replace(_FSDP2, gathers="all", sends=2),
    "fsdp2 offload": replace(_FSDP2, offload="all"),
    "hsdp": replace(_FSDP2, replicated=True),
    "zero1": _ZERO1,
    "zero2": _ZERO2,
    "zero2 offload": replace(_ZERO2, offload="optimizer"),
    "zero3": _ZERO3,
    "zero3 offload": replace(_ZERO3, offload="all"),
    "tensor parallel": Strategy(tensor=True),
    "fsdp2 x tensor": replace(_FSDP2, tensor=True),
}
"""By the names that `plan` prints; fsdp2 zero-2 has reshard_after_forward false."""


def block_parameters(config: TransformerConfig) -> tuple[int, int]:
    """Those of the largest block, and those outside all blocks."""
    total, blocks, inside = count_parameters(config)["total"], [0], 0
    for name in ("encoder", "decoder"):
        stack: StackConfig | None = getattr(config, name)
        if stack is not None:
            taller: dict[str, Any] = {name: replace(stack, num_layers=stack.num_layers + 1)}
            blocks.append(count_parameters(replace(config, **taller))["total"] - total)
            inside += stack.num_layers * blocks[-1]
    return max(blocks), total - inside


def sliced(config: TransformerConfig, devices: int) -> TransformerConfig:
    """What each device has under tensor parallelism: a share of heads, channels and pieces.

    Raises:
        ValueError: they cannot be shared out.
    """
    if devices == 1:
        return config

    def part(name: str, number: int) -> int:
        if number % devices:
            raise ValueError(
                f"{name} ({number}) must be a multiple of the devices ({devices}) for tensor "
                "parallelism; choose a divisor of it for --devices"
            )
        return number // devices

    def slice_of(name: str, stack: StackConfig | None) -> StackConfig | None:
        if stack is None:
            return None
        heads = replace(
            stack.attention,
            num_heads=part(f"{name}.attention.num_heads", stack.attention.num_heads),
            num_kv_heads=part(f"{name}.attention.num_kv_heads", stack.attention.kv_heads),
            head_dim=stack.head_dim,
        )
        ffn_dim = part(f"{name}.feed_forward.ffn_dim", stack.ffn_dim)
        return replace(
            stack, attention=heads, feed_forward=replace(stack.feed_forward, ffn_dim=ffn_dim)
        )

    assert config.vocab_size is not None
    return replace(
        config,
        encoder=slice_of("encoder", config.encoder),
        decoder=slice_of("decoder", config.decoder),
        vocab_size=part("vocab_size", config.vocab_size),
    )
