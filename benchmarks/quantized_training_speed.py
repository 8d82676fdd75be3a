"""What it costs a step of training to round, or what it saves to multiply whole numbers.

    python benchmarks/quantized_training_speed.py --size gpt2 --tokens 1024 --rounds 7

Steps are forward, backward, clipping and AdamW in bfloat16 autocast on one batch: plain, with the
rounding of `with/qat_int8` and of `with/qat_int4`, and with the products of `with/int8_training`,
in alternation. Each has a network of its own. Prints medians and ratios.
"""

from collections.abc import Callable
from typing import Any

import torch
from step_costs import arguments, compare, config_of, windows
from torch import nn

from gpt4o_lit.compression import FakeQuantization, Formats, Targets, use_int8_products_
from gpt4o_lit.model import Transformer
from gpt4o_lit.model.weight_format import WeightFormat
from gpt4o_lit.objectives import linear_cross_entropy
from gpt4o_lit.strategies.allocator import keep_freed_memory


def rounds_as(format: WeightFormat) -> Callable[[Transformer], None]:
    """Does to a network what quantization-aware training does."""

    def prepare(network: Transformer) -> None:
        for name, each in Formats(format=format).of(network).items():
            layer: Any = network.get_submodule(name)
            layer.fake = FakeQuantization(each, layer.weight)
        head: Any = network.head
        head.fake = network.tokens.fake

    return prepare


KINDS: dict[str, Callable[[Transformer], None]] = {
    "plain": lambda network: None,
    "qat, int8 inputs and weights": rounds_as(WeightFormat(bits=8, rounds_inputs=True)),
    "qat, int4 in groups of 32": rounds_as(WeightFormat(bits=4, group_size=32)),
    "int8 products": lambda network: use_int8_products_(network, Targets()),
}


def step_of(network: Transformer, tokens: int) -> Callable[[], None]:
    """A step on one batch."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    read, asked = windows(network.config, tokens)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            features = network.head.features(network.hidden(read)).flatten(0, 1)
            weight = network.head.matrix()
            loss = linear_cross_entropy(features, weight, asked.flatten())
        (loss / tokens).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def main() -> None:
    """Measure all in turn."""
    args = arguments(__doc__.splitlines()[0])
    keep_freed_memory()
    steps = {}
    for kind, prepare in KINDS.items():
        network = Transformer(config_of(args.size)).train()
        prepare(network)
        steps[kind] = step_of(network, args.tokens)
    compare(steps, args.tokens, args.rounds)


if __name__ == "__main__":
    main()
