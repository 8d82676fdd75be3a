"""Adapters of low rank beside weights that stay as they are, and how they are added to them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt4o_lit.model.dropout import Dropout
from gpt4o_lit.model.quantized import formats_of, restored
from gpt4o_lit.model.weight_format import WeightFormat

# R rank, O outputs, I inputs

NUMBERS, SCALES = ".weight.numbers", ".weight.scales"
OPTIONS = {"layers": "targets", "trained": "train_also", "formats": "quantize"}


@dataclass(frozen=True, kw_only=True)
class LowRankConfig:
    """How large adapters are, and how much they count."""

    rank: int = 8
    """Rows of A, columns of B."""
    alpha: float = 16.0
    """Their product counts alpha / rank times."""
    dropout: float = 0.0
    """Share of what an adapter reads that is dropped in training."""
    rank_stabilized: bool = False
    """Their product counts alpha / sqrt(rank) times (rsLoRA, arXiv:2312.03732)."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank ({self.rank}) must be at least 1; set rank to 8")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"alpha ({self.alpha}) must be above 0; set alpha to twice the rank")
        if not 0 <= self.dropout < 1:
            raise ValueError(
                f"dropout ({self.dropout}) must be at least 0 and below 1; set dropout to 0.05"
            )

    @property
    def scale(self) -> float:
        """What the product of the two matrices is multiplied with."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)


class LowRank(nn.Module):
    """What stands beside a layer: its product gains B A x, scaled (LoRA, arXiv:2106.09685).

    A (R, I) is drawn as `nn.Linear` draws its weight, B (O, R) is 0: at first nothing changes.

    Args:
        config: Of all adapters of a network.
        weight_OI: The layer's, of floats or whole numbers; the adapter lies where it lies.
    """

    def __init__(self, config: LowRankConfig, weight_OI: Any) -> None:
        super().__init__()
        self.config, place = config, {"device": weight_OI.device, "dtype": weight_OI.dtype}
        outputs, inputs = weight_OI.shape
        self.A = nn.Parameter(torch.empty(config.rank, inputs, **place))
        self.B = nn.Parameter(torch.zeros(outputs, config.rank, **place))
        self.dropout = Dropout(config.dropout)
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """What is added to the layer's product: (..., O)."""
        return F.linear(F.linear(self.dropout(x), self.A) * self.config.scale, self.B)


def settings_of(network: nn.Module) -> dict[str, Any]:
    """What a checkpoint says of a network's adapters, as plain data; empty where there is none."""
    adapters = {
        name.removesuffix(".low_rank"): part
        for name, part in network.named_modules()
        if isinstance(part, LowRank)
    }
    if not adapters:
        return {}
    trained = [
        name
        for name, part in network.named_modules()
        if not isinstance(part, LowRank)
        and any(weight.requires_grad for weight in part.parameters(recurse=False))
    ]
    return asdict(next(iter(adapters.values())).config) | {
        "layers": list(adapters),
        "trained": trained,
        "formats": {name: asdict(format) for name, format in formats_of(network).items()},
    }


def config_of(settings: Mapping[str, Any]) -> LowRankConfig:
    """Of the adapters that such settings are about."""
    return LowRankConfig(**{name: settings[name] for name in LowRankConfig.__annotations__})


def merged_state(
    state: Mapping[str, Tensor], settings: Mapping[str, Any], prefix: str = ""
) -> dict[str, Tensor]:
    """The state of the same network of floats, each adapter added to its layer's weight.

    Args:
        state: Of a network with adapters, its names behind the prefix; it is left as it is.
        settings: What `settings_of` said of that network; empty: there is nothing to add.
    """
    merged = dict(state)
    if not settings:
        return merged
    formats, scale = settings["formats"], config_of(settings).scale
    for name in [each.removesuffix(NUMBERS) for each in state if each.endswith(NUMBERS)]:
        layer = name.removeprefix(prefix)
        format = WeightFormat(**formats.get(layer) or formats["tokens"])  # a tied head is the last
        numbers, scales = merged.pop(name + NUMBERS), merged.pop(name + SCALES)
        merged[f"{name}.weight"] = restored(numbers, scales, format)
    for layer in settings["layers"]:
        weight_OI = merged[f"{prefix}{layer}.weight"]
        exact = torch.promote_types(weight_OI.dtype, torch.float32)
        a_RI, b_OR = (merged.pop(f"{prefix}{layer}.low_rank.{part}").to(exact) for part in "AB")
        sum_OI = weight_OI.to(exact) + scale * (b_OR @ a_RI)
        merged[f"{prefix}{layer}.weight"] = sum_OI.to(weight_OI.dtype)
    return merged


def require_same_adapters(network: nn.Module, saved: Mapping[str, Any] | None) -> None:
    """Refuse to go on with other adapters than a checkpoint has.

    Raises:
        ValueError: one has adapters and the other has none, or they are at other places or of
            another shape.
    """
    here, saved = settings_of(network), saved or {}
    if saved and not here:
        raise ValueError(
            f"the checkpoint has adapters of rank {saved['rank']}, but nothing adds them here; put "
            "the callback gpt4o_lit.callbacks.LoRA back"
        )
    if here and not saved:
        raise ValueError(
            "the checkpoint has no adapters, but LoRA adds some here; take LoRA out, or begin a "
            "new run from it by `gpt4o-lit fit --from RUN`"
        )
    if not here:
        return
    if here["rank"] != saved["rank"]:
        raise ValueError(
            f"rank ({here['rank']}) is not that of the checkpoint ({saved['rank']}); put it back, "
            "or begin a new run by `gpt4o-lit fit --from RUN`"
        )
    for field, option in OPTIONS.items():
        changed = _changed(here[field], saved[field])
        if changed:
            raise ValueError(
                f"{option} is not that of the checkpoint for {len(changed)} layers, the first is "
                f"{changed[0]}; put it back, or begin a new run by `gpt4o-lit fit --from RUN`"
            )


def _changed(here: Any, saved: Any) -> list[str]:
    """Layers that are in one of two lists, or have another value in one of two dicts."""
    one, other = (v if isinstance(v, dict) else dict.fromkeys(v, True) for v in (here, saved))
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
