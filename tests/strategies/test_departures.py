"""Whoever leaves learns of each other rank why it leaves, or that it is silent."""

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import DistBackendError, TCPStore

from gpt4o_lit.strategies import departures
from gpt4o_lit.strategies.departures import blame, take_leave, waited_in_vain

SLOW = pytest.mark.slow


@pytest.fixture
def stores() -> list[TCPStore]:
    """The store of three ranks, of which rank 0 keeps it."""
    wait = timedelta(seconds=5)
    keeper = TCPStore("127.0.0.1", 0, is_master=True, timeout=wait, wait_for_workers=False)
    others = [TCPStore("127.0.0.1", keeper.port, timeout=wait) for _ in range(2)]
    return [keeper, *others]


def leave(stores: list[TCPStore], reasons: dict[int, str]) -> dict[int, dict[int, str | None]]:
    """What each of the ranks that leave hears, all at once."""
    with ThreadPoolExecutor() as pool:
        told = {
            rank: pool.submit(take_leave, stores[rank], rank, 3, reason, 0.5)
            for rank, reason in reasons.items()
        }
        return {rank: answer.result() for rank, answer in told.items()}


def test_all_hear_the_reasons_of_all_at_once(stores: list[TCPStore]) -> None:
    start = time.monotonic()
    assert leave(stores, {0: "", 1: "ValueError: a row", 2: ""}) == {
        0: {1: "ValueError: a row", 2: ""},
        1: {0: "", 2: ""},
        2: {0: "", 1: "ValueError: a row"},
    }
    assert time.monotonic() - start < 0.5


def test_who_hangs_is_silent(stores: list[TCPStore]) -> None:
    told = leave(stores, {0: "", 2: ""})
    assert told == {0: {1: None, 2: ""}, 2: {0: "", 1: None}}
    assert blame(told[0]).startswith("rank 1 did not come to a collective")


def test_a_process_that_has_ended_is_not_waited_for(stores: list[TCPStore]) -> None:
    start = time.monotonic()
    told = take_leave(stores[0], 0, 2, "", 60, lambda rank: "was killed")
    assert time.monotonic() - start < 5
    assert blame(told) == "rank 1: was killed"


@pytest.mark.parametrize("sign", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=SLOW)])
def test_without_the_keeper_of_the_store_nothing_else_is_known(
    sign: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(departures, "ANSWER", 0.2)
    keep = "from torch.distributed import TCPStore; import time;"
    keep += "store = TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False);"
    keep += "print(store.port, flush=True); time.sleep(60)"
    command = [sys.executable, "-c", keep]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as keeper:
        assert keeper.stdout
        store = TCPStore("127.0.0.1", int(keeper.stdout.readline()), timeout=timedelta(seconds=5))
        keeper.send_signal(sign)
        told = take_leave(store, 2, 3, "", 0.1)
        keeper.kill()
    assert told == {0: None}


@pytest.mark.parametrize(
    ("error", "others_failed"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:552] Connection closed by peer"), True),
        (DistBackendError("NCCL error"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("step 3: the loss is nan on rank 0"), False),
    ],
)
def test_own_errors_are_told_from_those_of_others(error: Exception, others_failed: bool) -> None:
    assert waited_in_vain(error) == others_failed
