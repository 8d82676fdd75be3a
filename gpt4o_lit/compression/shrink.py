"""How much of a network is cut, and which parts of it are the ones to go."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from gpt4o_lit.compression.importance import Importance
from gpt4o_lit.compression.structure import Kept
from gpt4o_lit.model import StackConfig, TransformerConfig


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Shares of a network that are taken out, equally much of each block."""

    heads: float = 0.0
    """Query heads; where they share keys and values, of each group."""
    kv_groups: float = 0.0
    """Key and value heads, with the query heads that share them."""
    channels: float = 0.0
    """Inner features of the feed-forward parts."""
    width: float = 0.0
    """Features of the tokens."""
    blocks: float = 0.0
    """Whole blocks of each stack."""
    multiple_of: int = 32
    """What is left of channels and width is rounded to a multiple of this, which kernels like."""

    def __post_init__(self) -> None:
        shares = {each.name: getattr(self, each.name) for each in fields(self)}
        multiple_of = shares.pop("multiple_of")
        for name, share in shares.items():
            if not 0 <= share < 1:
                raise ValueError(
                    f"{name} ({share}) must be at least 0 and below 1; 0.25 takes a quarter out"
                )
        if not any(shares.values()):
            raise ValueError(f"nothing is cut; set one of {', '.join(shares)} to such as 0.25")
        if multiple_of < 1:
            raise ValueError(f"multiple_of ({multiple_of}) must be at least 1; set it to 32")

    def require_fit(self, config: TransformerConfig) -> None:
        """Refuse cuts that would change what a network means.

        Raises:
            ValueError: naming the field and the mend.
        """
        for stack in filter(None, (config.encoder, config.decoder)):
            grouped = stack.attention.kv_heads < stack.attention.num_heads
            if self.kv_groups and not grouped:
                raise ValueError(
                    f"kv_groups ({self.kv_groups}): each of the {stack.attention.num_heads} heads "
                    "has its own keys and values; set heads in its place"
                )
            if self.heads and stack.position.kind == "alibi":
                raise ValueError(
                    f"heads ({self.heads}): with alibi a head is its slope, which follows from how "
                    "many there are; set heads to 0"
                )
            if self.width and stack.position.kind == "sinusoidal":
                raise ValueError(
                    f"width ({self.width}): sinusoidal positions are made for all features; set "
                    "width to 0"
                )
            if self.width and stack.scale_embedding:
                raise ValueError(
                    f"width ({self.width}): scale_embedding multiplies by a number that follows "
                    "from dim; set width to 0"
                )

    def at(self, share: float) -> "Cut":
        """The same with this share of it done."""
        done = {
            each.name: share * getattr(self, each.name)
            for each in fields(self)
            if each.name != "multiple_of"
        }
        return Cut(**done, multiple_of=self.multiple_of)

    def left_of(self, count: int, share: float, multiple: int = 1) -> int:
        """How many of `count` stay, at least one multiple and at most all."""
        return min(count, max(multiple, round(count * (1 - share) / multiple) * multiple))


def choose(
    importance: Importance, config: TransformerConfig, dense: TransformerConfig, cut: Cut
) -> Kept:
    """Keep what matters most.

    Args:
        importance: Of the parts of the network as it is.
        config: Of the network as it is.
        dense: Of the network before anything was cut; shares are of it.
        cut: How much shall be gone.
    """
    heads: dict[str, Tensor] = {}
    kv_heads: dict[str, Tensor] = {}
    channels: dict[str, Tensor] = {}
    blocks: dict[str, Tensor] = {}
    for side in ("encoder", "decoder"):
        stack, whole = getattr(config, side), getattr(dense, side)
        if stack is None:
            continue
        scores = _shared(importance.heads, side) if stack.position.kind == "relative" else {}
        for name, own in _of(importance.heads, side).items():
            chosen = _heads(scores.get(name, own), stack, whole, cut)
            heads[name], kv_heads[name] = chosen
        for name, own in _of(importance.channels, side).items():
            channels[name] = _best(own, cut.left_of(whole.ffn_dim, cut.channels, cut.multiple_of))
        blocks[side] = _best(importance.blocks[side], cut.left_of(whole.num_layers, cut.blocks))
    width = cut.left_of(dense.dim, cut.width, cut.multiple_of)
    return Kept(
        heads=heads,
        kv_heads=kv_heads,
        channels=channels,
        features=_best(importance.features, width),
        blocks=blocks,
    )


def _heads(
    scores_N: Tensor, stack: StackConfig, whole: StackConfig, cut: Cut
) -> tuple[Tensor, Tensor]:
    """The query heads and the key and value heads that stay in one attention."""
    groups = scores_N.view(stack.attention.kv_heads, -1)
    dense_groups = whole.attention.kv_heads
    dense_size = whole.attention.num_heads // dense_groups
    share_of_groups = cut.heads if dense_size == 1 else cut.kv_groups
    size = cut.left_of(dense_size, 0.0 if dense_size == 1 else cut.heads)
    kv = _best(groups.sum(1), cut.left_of(dense_groups, share_of_groups))
    within = torch.stack([_best(groups[group], size) for group in kv])
    return (kv[:, None] * groups.shape[1] + within).flatten(), kv


def _best(scores: Tensor, count: int) -> Tensor:
    """Where the highest scores are, ascending."""
    return scores.topk(min(count, len(scores))).indices.sort().values


def _of(scores: dict[str, Tensor], side: str) -> dict[str, Tensor]:
    return {name: own for name, own in scores.items() if name.startswith(f"{side}.")}


def _shared(scores: dict[str, Tensor], side: str) -> dict[str, Tensor]:
    """Relative positions give each head of a stack its bias, so all blocks keep the same heads."""
    own = {n: s for n, s in _of(scores, side).items() if not n.endswith("cross_attention")}
    total = torch.stack(list(own.values())).sum(0)
    return dict.fromkeys(own, total)
