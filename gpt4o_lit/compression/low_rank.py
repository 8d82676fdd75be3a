"""Which layers of a network get an adapter of low rank, and that nothing else trains."""

from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from gpt4o_lit.compression.recipe import Formats
from gpt4o_lit.compression.targets import OWNERS, Targets
from gpt4o_lit.model import Transformer
from gpt4o_lit.model.low_rank import LowRank, LowRankConfig
from gpt4o_lit.model.quantized import QuantizedWeight, formats_of, place_, quantized_weights
from gpt4o_lit.model.weight_format import WeightFormat


def add_low_rank_(
    network: Transformer,
    config: LowRankConfig,
    targets: Targets | None = None,
    train_also: tuple[str, ...] = (),
) -> None:
    """Put an adapter beside each chosen matrix and freeze all else (LoRA, arXiv:2106.09685).

    The network computes what it did until the adapters are trained. Its weights may be whole
    numbers already (QLoRA, arXiv:2305.14314).

    Args:
        network: It keeps its weights as they are.
        config: Of every adapter.
        targets: The matrices. Default: those of attention and feed-forward.
        train_also: Patterns of layers that are trained whole, such as *norm or head.

    Raises:
        ValueError: a pattern matches nothing, or a layer that it chooses can have no adapter or
            cannot be trained.
    """
    targets = targets or Targets()
    _require_kinds(targets)
    for name, format in formats_of(network).items():
        _require_exact_inputs(name, format)
    chosen = targets.weights(network)
    whole = _find(network, train_also, adapted=set(chosen))
    for weight in network.parameters():
        weight.requires_grad_(False)
    for part in whole:
        for weight in part.parameters(recurse=False):
            weight.requires_grad_(True)
    for each in quantized_weights(network):
        each.trains_others = True
    for name, matrix in chosen.items():
        layer: Any = network.get_submodule(name)
        layer.low_rank = LowRank(config, matrix).train(layer.training)


def quantize_base_(network: Transformer, format: WeightFormat) -> None:
    """Store the matrices of attention and feed-forward as whole numbers, rounded to nearest.

    Raises:
        ValueError: a layer cannot be stored so, or inputs would be rounded too.
    """
    weights = {}
    for name, each in Formats(format=format, targets=Targets()).of(network).items():
        _require_exact_inputs(name, each)
        layer: Any = network.get_submodule(name)
        weights[name] = QuantizedWeight.rounding(layer.weight, each)
    place_(network, weights)


def count_trained(network: nn.Module) -> int:
    """Parameters that are trained; tied ones once."""
    return sum(weight.numel() for weight in network.parameters() if weight.requires_grad)


def _require_kinds(targets: Targets) -> None:
    other = [kind for kind in targets.kinds if kind not in OWNERS]
    if other:
        raise ValueError(
            f"targets.kinds ({other[0]}) must be of {', '.join(OWNERS)}, for nothing else has "
            "adapters; take it out, and name the layer in train_also to train it whole"
        )


def _require_exact_inputs(name: str, format: WeightFormat) -> None:
    if format.rounds_inputs:
        raise ValueError(
            f"{name}: rounds_inputs ({format.rounds_inputs}) leaves no gradient to what is trained "
            "before it; set rounds_inputs to false"
        )


def _find(network: Transformer, patterns: tuple[str, ...], adapted: set[str]) -> list[nn.Module]:
    """The layers that these patterns name, whose own weights can be trained."""
    parts = {
        name: part
        for name, part in network.named_modules()
        if next(part.parameters(recurse=False), None) is not None
    }
    found = []
    for pattern in patterns:
        names = [name for name in parts if fnmatchcase(name, pattern)]
        if not names:
            near = get_close_matches(pattern, parts, n=1, cutoff=0.0)
            raise ValueError(
                f"train_also ({pattern}) matches no layer with weights; one is called {near[0]}"
            )
        for name in names:
            if name in adapted or isinstance(parts[name].weight, QuantizedWeight):
                why = "has an adapter" if name in adapted else "is quantized"
                raise ValueError(
                    f"train_also ({pattern}) names {name}, which {why}; name others, or leave it "
                    "out of " + ("targets by but_not" if name in adapted else "quantize")
                )
        found += [parts[name] for name in names]
    return found
