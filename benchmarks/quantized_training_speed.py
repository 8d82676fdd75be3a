"""What it costs a step of training to round, or what it saves to multiply whole numbers.

    python benchmarks/quantized_training_speed.py --size gpt2 --tokens 1024 --rounds 7

Steps are forward, backward, clipping and AdamW in bfloat16 autocast on one batch: plain, with the
rounding of `with/qat_int8` and of `with/qat_int4`, and with the products of `with/int8_training`,
in alternation. Each has a network of its own. Prints medians and ratios.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import yaml
from torch import nn

from gpt4o_lit.compression import (
    FakeQuantization,
    Formats,
    Targets,
    use_int8_products_,
)
from gpt4o_lit.configs import find
from gpt4o_lit.model import Transformer, TransformerConfig
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
    """A step on one batch of windows of 512."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    batch = torch.randint(0, network.config.vocab_size or 0, (tokens // 512, 513))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            features = network.head.features(network.hidden(batch[:, :-1])).flatten(0, 1)
            weight = network.head.matrix()
            loss = linear_cross_entropy(features, weight, batch[:, 1:].flatten())
        (loss / tokens).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def main() -> None:
    """Measure all in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="gpt2")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    keep_freed_memory()
    values = yaml.safe_load(find(f"model/{args.size}").read_text(encoding="utf-8"))
    config = TransformerConfig.from_dict(values)
    steps = {}
    for kind, prepare in KINDS.items():
        network = Transformer(config).train()
        prepare(network)
        steps[kind] = step_of(network, args.tokens)
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for round in range(args.rounds + 2):  # the first two warm up
        for kind, step in steps.items():
            start = time.perf_counter()
            step()
            if round >= 2:
                times[kind].append(time.perf_counter() - start)
    for kind, own in times.items():
        ratio = statistics.median(a / b for a, b in zip(own, times["plain"], strict=True))
        print(
            f"step of {args.tokens} tokens, {kind:28} {statistics.median(own):6.3f} s  x{ratio:.3f}"
        )


if __name__ == "__main__":
    main()
