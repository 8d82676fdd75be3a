"""What becomes of the others when one process of several leaves: who is missing is found out."""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from torch.distributed import DistError

ANSWER = 5.0
"""Seconds in which a store that is there answers."""


def waited_in_vain(error: BaseException) -> bool:
    """Whether it is others who failed: the error is of a collective that they did not come to."""
    told = isinstance(error, RuntimeError) and re.search(
        r"gloo|nccl|ProcessGroup", str(error), re.I
    )
    return isinstance(error, DistError) or bool(told)


def take_leave(
    store: Any,
    rank: int,
    world_size: int,
    reason: str,
    patience: float,
    ended: Callable[[int], str] = lambda rank: "",
) -> dict[int, str | None]:
    """Tell the other ranks why this one leaves, and hear from each why it does.

    They meet at the store that they began by, for a collective would wait for who is missing. Rank
    0 keeps the store: where it does not answer, nothing is known of the others.

    Args:
        store: A torch.distributed.Store of all ranks.
        reason: Why this one leaves; empty where it has waited for others in vain.
        patience: Seconds in which the others may leave too.
        ended: How the process of a rank has ended, as far as one can see; empty if it has not.

    Returns:
        The reason of each other rank; None of those that are silent.
    """
    told: dict[int, str | None] = dict.fromkeys(set(range(world_size)) - {rank})
    heard, ended_asking = threading.Event(), threading.Event()

    def ask() -> None:
        with contextlib.suppress(RuntimeError):
            store.set(_key(rank), reason)
            while not heard.is_set():
                for other in [other for other, answer in told.items() if answer is None]:
                    if store.check([_key(other)]):
                        told[other] = store.get(_key(other)).decode()
                    else:
                        told[other] = ended(other) or None
                if None not in told.values() or time.monotonic() >= deadline:
                    heard.set()
                time.sleep(0.05)
        ended_asking.set()

    deadline = time.monotonic() + patience
    # In a thread of its own, for a store whose process is stopped never answers.
    threading.Thread(target=ask, daemon=True).start()
    ended_asking.wait(patience + ANSWER)
    return told if heard.is_set() else {0: None}


def _key(rank: int) -> str:
    return f"departures/{rank}"


def blame(told: dict[int, str | None]) -> str:
    """One line about who is missing, for a rank that has waited in vain."""
    failed = {rank: reason for rank, reason in told.items() if reason}
    silent = [rank for rank, reason in told.items() if reason is None]
    if failed:
        return "; ".join(f"rank {rank}: {reason}" for rank, reason in failed.items())
    if silent:
        return (
            f"{_ranks(silent)} did not come to a collective and gave no reason: killed, hung as "
            "long as the strategy's timeout, or its machine is gone; see there with py-spy dump"
        )
    return "a collective failed although every rank answers; look at the network between them"


def _ranks(ranks: Iterable[int]) -> str:
    numbers = [str(rank) for rank in ranks]
    return ("rank " if len(numbers) == 1 else "ranks ") + ", ".join(numbers)
