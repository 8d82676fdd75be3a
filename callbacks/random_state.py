"""The state of the random generators, so that a run goes on as if it had never stopped."""

import random
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer


class RandomState(Callback):
    """Saves the generators of torch, numpy and Python of every process, as plain data.

    Lightning seeds all processes alike; here each draws its own dropout.
    """

    def __init__(self) -> None:
        self._restored: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """The generators now, by rank; loads with `weights_only=True`."""
        states = [_generators()]
        if torch.distributed.is_initialized():
            states *= torch.distributed.get_world_size()
            torch.distributed.all_gather_object(states, states[0])
        return {"ranks": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember them; they are set when training starts, after everything that draws before."""
        self._restored = state_dict["ranks"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the generators once, before the first batch."""
        rank, restored, self._restored = trainer.global_rank, self._restored, []
        if rank < len(restored):
            _set_generators(restored[rank])
        elif rank:
            # A generator on the CPU reads the low 32 bits of its seed alone.
            torch.manual_seed((torch.initial_seed() + rank * 0x9E3779B9) % 2**32)


def _generators() -> dict[str, Any]:
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": [np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
        "python": [version, list(internal), gauss],
    }


def _set_generators(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", np.array(keys, np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
