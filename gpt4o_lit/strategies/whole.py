"""A whole network where each process holds parts of it, and which batches a process reads."""

from copy import deepcopy
from typing import Any

import torch
from torch import nn

from gpt4o_lit.model import Transformer
from gpt4o_lit.model.low_rank import merged_state, settings_of
from gpt4o_lit.strategies.parts import HoldsParts


@torch.no_grad()
def whole_network(strategy: Any, network: Transformer) -> Transformer:
    """The network itself, or where each process holds parts of it a whole copy, in evaluation mode.

    Adapters of low rank are added to the copy's weights, and what rounds weights rounds its too.
    All processes call this at once.
    """
    state = strategy.whole_state(network) if isinstance(strategy, HoldsParts) else None
    if state is None:
        return network
    with torch.random.fork_rng(devices=[]):
        copy: nn.Module = Transformer(network.config)
    copy.load_state_dict(merged_state(state, settings_of(network)))
    for name, part in network.named_modules():
        if getattr(part, "fake", None) is not None:  # which has no weights of its own
            copy.get_submodule(name).fake = deepcopy(part.fake)
    return copy.eval().to(strategy.root_device)  # type: ignore[return-value]


def data_place(trainer: Any) -> tuple[int, int]:
    """Which of the processes that read batches of their own this is, and how many there are.

    Those that share a network read the same.
    """
    places = getattr(trainer.strategy, "distributed_sampler_kwargs", None)
    if places is None:
        return trainer.global_rank, trainer.world_size
    return places["rank"], places["num_replicas"]
