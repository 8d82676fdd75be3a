"""A whole network where each process holds parts of it, and what cannot do with parts."""

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from gpt4o_lit.model import Transformer


@runtime_checkable
class HoldsParts(Protocol):
    """A strategy under which a process may hold parts of the weights."""

    def whole_state(self, module: nn.Module) -> dict[str, Tensor] | None:
        """The whole weights of a module, on every process; None: each has them as it is.

        All processes call this at once.
        """


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


def require_none_needs_whole(strategy: str, parts: Iterable[Any]) -> None:
    """Refuse callbacks and optimizers that see nothing in parts of weights.

    Raises:
        ValueError: one of them is on and has `needs_whole_weights`.
    """
    for part in parts:
        if getattr(part, "needs_whole_weights", False) and getattr(part, "enabled", True):
            name = type(part).__name__
            raise ValueError(
                f"{name} needs weights that are whole, and {strategy} holds parts of them; take "
                f"--config with/ddp, or leave {name} out"
            )
