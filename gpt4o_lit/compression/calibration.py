"""What reaches each layer on some batches, with the states of one block in memory at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gpt4o_lit.model import Transformer

# M tokens, I inputs

Forward = Callable[[], object]
"""Reads one batch by the whole network; what it gives is of no interest."""
Run = Callable[[], list[Tensor]]
"""Runs one block on every batch, and gives what it gives."""
Reduce = Callable[[Tensor], Tensor]
"""Sums what the processes saw, each on batches of its own."""
Measure = Callable[[Tensor], Tensor]
"""Turns inputs (M, I) into something that is added up over batches, or of which the most counts."""


class _Caught(Exception):
    """The first block of a stack has been reached."""


def blocks_in_turn(
    network: Transformer, forwards: Sequence[Forward]
) -> Iterator[tuple[str, nn.Module, Run]]:
    """Each block by name, with a function that runs it on every batch.

    A block may be changed before the next is asked for, which then reads what the changed ones
    make of the batches, as it will in use. What a decoder's first block reads comes from the
    encoder as it then is. Call it in evaluation mode, without gradients and compilation.
    """
    for side in ("encoder", "decoder"):
        stack: Any = getattr(network, side)
        if stack is None:
            continue
        inputs = [_caught(stack.blocks[0], forward) for forward in forwards]
        for number, block in enumerate(stack.blocks):
            yield f"{side}.blocks.{number}", block, partial(_run, block, inputs)
            inputs = [
                (output, *rest)
                for output, (_, *rest) in zip(_run(block, inputs), inputs, strict=True)
            ]


def measure_inputs(
    network: nn.Module,
    measures: Mapping[str, Measure],
    run: Callable[[], object],
    combine: Callable[[Tensor, Tensor], Tensor] = torch.add,
) -> dict[str, Tensor]:
    """What measures say of the inputs of the layers they are named by, over all calls in `run`."""
    sums: dict[str, Tensor] = {}

    def hook(name: str, measure: Measure) -> Callable[..., None]:
        def add(_: nn.Module, args: tuple[Tensor]) -> None:
            x_MI = args[0].flatten(0, -2).float()
            with torch.autocast(x_MI.device.type, enabled=False):
                value = measure(x_MI)
            sums[name] = combine(sums[name], value) if name in sums else value

        return add

    handles = [
        network.get_submodule(name).register_forward_pre_hook(hook(name, measure))
        for name, measure in measures.items()
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return sums


def norm_squares(x_MI: Tensor) -> Tensor:
    """The square of each input's norm over tokens: (I,)."""
    return x_MI.square().sum(0)


def gram(x_MI: Tensor) -> Tensor:
    """Products of each two inputs, summed over tokens: (I, I), half of a layer's Hessian."""
    return x_MI.T @ x_MI


def largest(x_MI: Tensor) -> Tensor:
    """The largest magnitude of each input over tokens: (I,)."""
    return x_MI.abs().amax(0)


def _run(block: nn.Module, inputs: Sequence[tuple[Any, ...]]) -> list[Tensor]:
    return [block(*args) for args in inputs]


def _caught(block: nn.Module, forward: Forward) -> tuple[Any, ...]:
    """The arguments that a block is called with."""
    found: list[tuple[Any, ...]] = []

    def catch(_: nn.Module, args: tuple[Any, ...]) -> None:
        found.append(args)
        raise _Caught

    handle = block.register_forward_pre_hook(catch)
    try:
        with suppress(_Caught):
            forward()
    finally:
        handle.remove()
    assert found, "the forward did not come by the block"
    return found[0]
