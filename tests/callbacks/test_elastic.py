"""What more or fewer processes read is what those read that a run began with."""

import pytest

from gpt4o_lit.callbacks.elastic import accumulated

SETTINGS = {
    "accumulate_grad_batches": 3, "val_check_interval": 6, "limit_train_batches": 1.0,
    "max_steps": 10,
}  # fmt: skip


@pytest.mark.parametrize(("processes", "window", "interval"), [(4, 3, 6), (2, 6, 12), (6, 2, 4)])
def test_a_step_has_equally_many_batches(processes: int, window: int, interval: int) -> None:
    assert accumulated(SETTINGS, 4, processes) == {
        "accumulate_grad_batches": window,
        "val_check_interval": interval,
    }


def test_a_step_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ValueError, match="5 processes cannot have equal parts of a step"):
        accumulated(SETTINGS, 4, 5)
