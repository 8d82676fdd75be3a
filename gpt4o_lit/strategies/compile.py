"""Compilation that leaves the names of weights alone."""

from gpt4o_lit.model import Transformer


def compile_(transformer: Transformer) -> None:
    """Compile each stack in place, so checkpoint keys stay as they are (`nn.Module.compile`).

    The stacks, not the whole: objectives and the chunked loss work outside the graph, and a
    layer-wise hook of a strategy still finds its blocks.
    """
    for stack in (transformer.encoder, transformer.decoder):
        if stack is not None:
            stack.compile()
