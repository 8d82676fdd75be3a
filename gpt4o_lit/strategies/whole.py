"""A whole network where each process holds parts of it, and which batches a process reads."""

from typing import Any

import torch
from torch import nn

from gpt4o_lit.model import Transformer
from gpt4o_lit.strategies.parts import HoldsParts


@torch.no_grad()
def whole_network(strategy: Any, network: Transformer) -> Transformer:
    """The network itself, or where each process holds parts of it a whole copy, in evaluation mode.

    All processes call this at once.
    """
    state = strategy.whole_state(network) if isinstance(strategy, HoldsParts) else None
    if state is None:
        return network
    with torch.random.fork_rng(devices=[]):
        copy: nn.Module = Transformer(network.config)
    copy.load_state_dict(state)
    return copy.eval().to(strategy.root_device)  # type: ignore[return-value]


def data_place(trainer: Any) -> tuple[int, int]:
    """Which of the processes that read batches of their own this is, and how many there are.

    Those that share a network read the same.
    """
    places = getattr(trainer.strategy, "distributed_sampler_kwargs", None)
    if places is None:
        return trainer.global_rank, trainer.world_size
    return places["rank"], places["num_replicas"]
