"""What pruning costs: a new mask of all weights, and holding masks from step to step.

    python benchmarks/pruning_speed.py --size gpt2 --tokens 1024 --rounds 5

Masks are made over the matrices of attention and feed-forward, repeated to 100M weights, by us and
(once) by torch.nn.utils.prune. Steps are forward, backward, clipping and AdamW in bfloat16 autocast
on one batch, plain, with masks held, and with scores of movement learned too, in alternation.
Prints medians and ratios.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import yaml
from torch import Tensor, nn
from torch.nn.utils import prune

from gpt4o_lit.compression import Masks, MovementScores, Targets, magnitude_masks
from gpt4o_lit.compression.magnitude import Scope
from gpt4o_lit.configs import find
from gpt4o_lit.model import Transformer, TransformerConfig
from gpt4o_lit.objectives import linear_cross_entropy
from gpt4o_lit.strategies.allocator import keep_freed_memory


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def masks(weights: dict[str, Tensor], rounds: int) -> None:
    """Print how long a mask of 100M weights takes."""
    many: dict[str, Tensor] = {}
    while sum(weight.numel() for weight in many.values()) < 100e6:
        number = len(many)
        name = list(weights)[number % len(weights)]
        many[f"{number}.{name}"] = weights[name]
    total = sum(weight.numel() for weight in many.values())
    scopes: tuple[Scope, ...] = ("global", "layer", "row")
    for scope in scopes:
        work = partial(magnitude_masks, many, 0.5, scope)
        times = [seconds(work) for _ in range(rounds)]
        print(f"mask of {total / 1e6:.0f}M weights, {scope:7} {statistics.median(times):6.2f} s")
    layers = []
    for weight in many.values():
        layer = nn.Linear(*weight.shape[::-1], bias=False, device="meta")
        layer.weight = nn.Parameter(weight.detach())
        layers.append((layer, "weight"))
    peer = seconds(lambda: prune.global_unstructured(layers, prune.L1Unstructured, amount=0.5))
    print(f"torch.nn.utils.prune, global      {peer:6.2f} s")


def steps(network: Transformer, targets: dict[str, Tensor], tokens: int, rounds: int) -> None:
    """Print how much longer a step takes with what is held."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    held, scores = Masks(targets), MovementScores(targets)
    held.replace(magnitude_masks(targets, 0.5))
    scores.swap_(held.kept)
    batch = torch.randint(0, network.config.vocab_size or 0, (tokens // 512, 513))

    def step(prunes: bool, moves: bool) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = network.head.features(network.hidden(batch[:, :-1])).flatten(0, 1)
            loss = linear_cross_entropy(features, network.head.weight, batch[:, 1:].flatten())
        (loss / tokens).backward()
        if moves:
            scores.learn_()
        if prunes:
            held.zero_gradients_()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if prunes:
            held.zero_()
        optimizer.zero_grad(set_to_none=True)

    kinds = {"plain": (False, False), "masks held": (True, False), "movement": (True, True)}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for round in range(rounds + 1):  # the first warms up
        for kind, flags in kinds.items():
            took = seconds(lambda flags=flags: step(*flags))
            if round:
                times[kind].append(took)
    for kind, own in times.items():
        pairs = zip(own, times["plain"], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"step of {tokens} tokens, {kind:11} {statistics.median(own):6.3f} s  x{ratio:.3f}")


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="gpt2")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    keep_freed_memory()
    values = yaml.safe_load(find(f"model/{args.size}").read_text(encoding="utf-8"))
    config = TransformerConfig.from_dict(values)
    network = Transformer(config).train()
    targets = Targets().weights(network)
    masks(targets, args.rounds)
    steps(network, targets, args.tokens, args.rounds)


if __name__ == "__main__":
    main()
