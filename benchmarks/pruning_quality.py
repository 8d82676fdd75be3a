"""What pruning costs at once, without a step of healing: the perplexity of a decoder that is cut.

    python benchmarks/pruning_quality.py RUN

Each way begins with the run's network, looks at batches of its training text where it looks at any,
and is judged on the whole validation text. Run it where the run was trained, for its corpus.
"""

import argparse
import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt4o_lit.compression import (
    Cut,
    Masks,
    Pattern,
    Share,
    Targets,
    choose,
    cut_,
    magnitude_masks,
    measure_importance,
    prune_blocks_,
    refit_,
)
from gpt4o_lit.compression.importance import By
from gpt4o_lit.data import PackedDataModule
from gpt4o_lit.experiments.experiment import read_experiment
from gpt4o_lit.interop.run import open_run
from gpt4o_lit.model import Transformer
from gpt4o_lit.objectives.causal import next_token_targets
from gpt4o_lit.objectives.objective import IGNORED
from gpt4o_lit.strategies.allocator import keep_freed_memory

Losses = list[Callable[[], Tensor]]
Prune = Callable[[Transformer, Losses], None]
CUTS: list[tuple[By, bool]] = [("taylor", False), ("taylor", True), ("reconstruction", True)]
"""By what heads and channels are chosen, and whether what stays is refitted."""


def data_of(run: Path) -> PackedDataModule:
    """The data module of a run's config, set up."""
    data = read_experiment(["--config", str(run / "config.yaml")]).datamodule
    data.prepare_data()
    data.setup("fit")
    assert isinstance(data, PackedDataModule)
    return data


def loss_sum(network: Transformer, batch: dict[str, Any]) -> Tensor:
    """The summed loss of what is asked in a batch, and how much that is: (2,)."""
    tokens, documents = batch["tokens"], batch["documents"]
    targets = next_token_targets(tokens, documents)
    logits = network(tokens[:, :-1], documents_BT=documents[:, :-1])
    loss = F.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return torch.stack([loss, (targets != IGNORED).sum()])


def mean_loss(network: Transformer, batch: dict[str, Any]) -> Tensor:
    """The loss of a target of a batch."""
    total, count = loss_sum(network, batch)
    return total / count


@torch.no_grad()
def perplexity(network: Transformer, batches: list[dict[str, Any]]) -> float:
    """Per piece, over all batches."""
    sums = [loss_sum(network, batch).double() for batch in batches]
    total, count = torch.stack(sums).sum(0).tolist()
    return math.exp(total / count)


def by_magnitude(network: Transformer, _: Losses, **how: Any) -> None:
    """The smallest weights."""
    masks = Masks(Targets().weights(network))
    if "pattern" in how:
        pattern = Pattern.parse(how["pattern"])
        masks.replace({name: pattern.mask(w.detach().abs()) for name, w in masks.weights.items()})
    else:
        masks.replace(magnitude_masks(masks.weights, **how))


def by_inputs(network: Transformer, losses: Losses, *, method: Any, share: Share) -> None:
    """Wanda and SparseGPT."""
    weights = Targets().weights(network)
    list(prune_blocks_(network, weights, losses, method, share, reduce=lambda sums: sums))


def cut(network: Transformer, losses: Losses, *, taken: Cut, by: By, refit: bool) -> None:
    """Heads and channels."""
    config = network.config
    kept = choose(measure_importance(network, losses, by), config, config, taken)
    if refit:
        refit_(network, kept, losses, reduce=lambda sums: sums)
    cut_(network, kept)


def ways() -> Iterator[tuple[str, Prune]]:
    """Each with what it is called."""
    for scope in ("global", "layer", "row"):
        how: Any = {"sparsity": 0.5, "scope": scope}
        yield f"50% of the weights, magnitude, {scope}", partial(by_magnitude, **how)
    half, two_of_four = Share(sparsity=0.5), Share(sparsity=0.5, pattern=Pattern(2, 4))
    for method in ("wanda", "sparse_gpt"):
        yield f"50% of the weights, {method}", partial(by_inputs, method=method, share=half)
    yield "2:4, magnitude", partial(by_magnitude, pattern="2:4")
    for method in ("wanda", "sparse_gpt"):
        yield f"2:4, {method}", partial(by_inputs, method=method, share=two_of_four)
    for heads, channels in ((0.125, 0.125), (0.25, 0.25), (0.0, 0.5)):
        taken = Cut(heads=heads, channels=channels)
        for by, refit in CUTS:
            name = f"{heads:.1%} of heads, {channels:.1%} of channels, {by}{', refitted' * refit}"
            yield name, partial(cut, taken=taken, by=by, refit=refit)


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--num_batches", type=int, default=16, help="of training text looked at")
    parser.add_argument("--bf16", action="store_true", help="run the network in bfloat16")
    args = parser.parse_args()
    keep_freed_memory()
    dense, data = open_run(args.run).transformer, data_of(args.run)
    seen = list(islice(data.train_dataloader(), args.num_batches))
    asked = list(data.val_dataloader())
    with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16, cache_enabled=False):
        parent = perplexity(dense, asked)
        print(f"{'dense':60} {parent:8.3f}", flush=True)
        for name, prune in ways():
            network = copy.deepcopy(dense)
            prune(network, [partial(mean_loss, network, batch) for batch in seen])
            found = perplexity(network, asked)
            print(f"{name:60} {found:8.3f} {found / parent - 1:+8.2%}", flush=True)


if __name__ == "__main__":
    main()
