"""Batches in an order that can be stopped and gone on with exactly."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gpt4o_lit.corpus import Split, packing

Array = np.ndarray[Any, Any]
Batch = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Order:
    """Which batches a process is handed, and in what order."""

    rank: int = 0
    world_size: int = 1
    seed: int = 0
    shuffle: bool = True
    """An order of its own for each epoch; else always the same, from the beginning."""
    began_with: int | None = None
    """Processes that the run began with: its batches are theirs, and who are more or fewer now take
    turns at the parts of them. Default: as many as now."""
    checksum: str = ""
    """Of the data, so that a position in another text is not taken for one in this."""


def order_in(trainer: Any, seed: int, shuffle: bool, checksum: str) -> Order:
    """That of this process of a Trainer's, or of one alone.

    Processes that share a network read the same; the strategy says which do.
    """
    rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
    places = getattr(trainer and trainer.strategy, "distributed_sampler_kwargs", None)
    if places is not None:
        rank, world_size = places["rank"], places["num_replicas"]
    callbacks = trainer.callbacks if trainer and shuffle else []
    began = next((c.began_with for c in callbacks if getattr(c, "began_with", None)), None)
    if began is not None:  # so many processes, of which as many as now share a network
        began = began * world_size // trainer.world_size
    return Order(
        rank=rank,
        world_size=world_size,
        seed=seed,
        shuffle=shuffle,
        began_with=began,
        checksum=checksum,
    )


class ResumableLoader(ABC):
    """Hands out batches and knows where it stands.

    The order is a pure function of (seed, epoch) and is the same set of examples per global
    batch for any number of ranks, so its place is two integers. Reading a memory map is far
    faster than training, hence no worker processes: nothing is fetched that is not handed out.

    Args:
        limit: Batches after which an epoch is over. Default: all.
    """

    def __init__(self, order: Order, limit: int | None = None) -> None:
        self.order, self.limit = order, limit
        self.processes = order.began_with or order.world_size
        self.epoch, self.batches_done = 0, 0
        self._goes_on = False

    def __len__(self) -> int:
        """Batches in an epoch on each process."""
        return self._batches() * self.processes // self.order.world_size

    @abstractmethod
    def _batches(self) -> int:
        """Batches of all the processes that the run began with, in an epoch."""

    @abstractmethod
    def _turns(self) -> Any:
        """What this epoch reads, in its order."""

    @abstractmethod
    def _batch(self, turns: Any, number: int, rank: int) -> Batch:
        """The part that a process has of a batch of all those that the run began with."""

    @abstractmethod
    def _order_settings(self) -> dict[str, Any]:
        """What gives a place its meaning, each by the name that a message calls it."""

    def __iter__(self) -> Iterator[Batch]:
        stop = len(self) if self.limit is None else min(self.limit, len(self))
        goes_on, self._goes_on = self._goes_on, False
        if not self.order.shuffle:
            self.batches_done = 0  # every validation reads the same text
        elif self.batches_done >= stop or (self.batches_done and not goes_on):
            self.epoch, self.batches_done = self.epoch + 1, 0
        turns = self._turns()
        while self.batches_done < stop:
            part = self.batches_done * self.order.world_size + self.order.rank
            batch = self._batch(turns, *divmod(part, self.processes))
            self.batches_done += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Epochs finished, batches handed out in this one to all the processes that the run began
        with, and what gives them their meaning."""
        done = self.batches_done * self.order.world_size // self.processes
        if self.batches_done == len(self):
            done = self._batches()
        return {"epoch": self.epoch, "batches_done": done, **self._order_settings()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind the last batch that was handed out.

        Raises:
            ValueError: in the middle of an epoch whose batches would be others now.
        """
        for name, now in self._order_settings().items():
            was = state.get(name)  # of a run older than the setting there is none
            if was != now and 0 < state["batches_done"] < self._batches():
                raise ValueError(
                    f"the run stopped in the middle of an epoch in which {name} was {was}, "
                    f"but it is {now}; set it as it was to go on with the run"
                )
        done = state["batches_done"] * self.processes // self.order.world_size
        self.epoch, self.batches_done = state["epoch"], done
        self._goes_on = True


class PackedLoader(ResumableLoader):
    """Packed windows: `{"tokens": (B, T+1) int64, "documents": (B, T+1) int32}`."""

    def __init__(
        self,
        split: Split,
        *,
        seq_len: int,
        batch_size: int,
        order: Order,
        limit: int | None = None,
    ) -> None:
        super().__init__(order, limit)
        self.split, self.seq_len, self.batch_size = split, seq_len, batch_size

    def _batches(self) -> int:
        """Whole ones when shuffled (training), all of them otherwise."""
        windows = self.split.num_windows(self.seq_len)
        batch = self.batch_size * self.processes
        return windows // batch if self.order.shuffle else -(-windows // batch)

    def _turns(self) -> Array:
        windows = self.split.num_windows(self.seq_len)
        if not self.order.shuffle:
            return np.arange(windows)
        return packing.order(windows, self.order.seed, self.epoch)

    def _batch(self, turns: Array, number: int, rank: int) -> Batch:
        start = (number * self.processes + rank) * self.batch_size
        tokens, documents = self.split.windows(turns[start : start + self.batch_size], self.seq_len)
        return {"tokens": torch.from_numpy(tokens), "documents": torch.from_numpy(documents)}

    def _order_settings(self) -> dict[str, Any]:
        return {
            "the text's checksum": self.order.checksum,
            "seq_len": self.seq_len,
            "batch_size x processes": self.batch_size * self.processes,
            "seed": self.order.seed,
        }
