"""Batches on which a method looks before it changes the weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

from lightning import Trainer

from gpt4o_lit.compression.importance import Loss


def require_batches(trainer: Any, num_batches: int) -> None:
    """Refuse to calibrate on none, or on more than there are.

    Raises:
        ValueError: each process has fewer.
    """
    there = len(trainer.datamodule.train_dataloader())
    if not 0 < num_batches <= there:
        raise ValueError(
            f"num_batches ({num_batches}) must be from 1 to {there}, the training batches of an "
            "epoch; set it to such a number"
        )


@contextmanager
def calibrating(trainer: Trainer, task: Any, num_batches: int) -> Iterator[list[Loss]]:
    """Functions that each give the loss of a batch of the training data, in evaluation mode.

    The batches are the first of the first epoch; where the run's own loader stands stays as it is.
    """
    loader = iter(trainer.datamodule.train_dataloader())  # type: ignore[attr-defined]
    batches = [trainer.strategy.batch_to_device(batch) for batch in islice(loader, num_batches)]
    training = task.training
    task.eval()
    try:
        with trainer.precision_plugin.predict_step_context():
            yield [partial(task.sample_loss, batch, number) for number, batch in enumerate(batches)]
    finally:
        task.train(training)
