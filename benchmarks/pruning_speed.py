"""What pruning costs: a new mask of all weights, and holding masks from step to step.

    python benchmarks/pruning_speed.py --size gpt2 --tokens 1024 --rounds 5

Masks are made over the matrices of attention and feed-forward, repeated to 100M weights, by us and
(once) by torch.nn.utils.prune. Steps are forward, backward, clipping and AdamW in bfloat16 autocast
on one batch, plain, with masks held, and with scores of movement learned too, in alternation.
Prints medians and ratios.
"""

import statistics
from functools import partial

import torch
from step_costs import arguments, compare, config_of, seconds, windows
from torch import Tensor, nn
from torch.nn.utils import prune

from gpt4o_lit.compression import Masks, MovementScores, Targets, magnitude_masks
from gpt4o_lit.compression.magnitude import Scope
from gpt4o_lit.model import Transformer
from gpt4o_lit.objectives import linear_cross_entropy
from gpt4o_lit.strategies.allocator import keep_freed_memory


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
    read, asked = windows(network.config, tokens)

    def step(prunes: bool, moves: bool) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = network.head.features(network.hidden(read)).flatten(0, 1)
            loss = linear_cross_entropy(features, network.head.weight, asked.flatten())
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
    compare({kind: partial(step, *flags) for kind, flags in kinds.items()}, tokens, rounds)


def main() -> None:
    """Measure both."""
    args = arguments(__doc__.splitlines()[0])
    keep_freed_memory()
    network = Transformer(config_of(args.size)).train()
    targets = Targets().weights(network)
    masks(targets, args.rounds)
    steps(network, targets, args.tokens, args.rounds)


if __name__ == "__main__":
    main()
