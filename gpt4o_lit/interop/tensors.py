"""Tensors of a model between our names and Hugging Face's: joined, split and turned as needed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt4o_lit.interop.names import Names
from gpt4o_lit.model import Transformer, TransformerConfig

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One tensor of ours is these of theirs, joined along its rows."""

    ours: str
    """Our name."""
    shape: Shape
    """Our shape."""
    theirs: dict[str, Shape]
    """Their names and shapes, as stored."""
    transposed: bool = False
    """Whether theirs are stored as (inputs, outputs)."""

    def read(self, get: Callable[[str, Shape], Tensor]) -> Tensor:
        """Our tensor, from a function that gives theirs by name and expected shape."""
        parts = [self._turn(get(name, shape)) for name, shape in self.theirs.items()]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        return whole.reshape(self.shape).contiguous()

    def write(self, tensor: Tensor) -> dict[str, Tensor]:
        """Their tensors, from ours."""
        rows = [shape[0] for shape in self.theirs.values()]
        parts = (tensor,) if len(rows) == 1 else tensor.split(rows)
        return {
            name: self._turn(part).reshape(shape).contiguous()
            for (name, shape), part in zip(self.theirs.items(), parts, strict=True)
        }

    def _turn(self, part: Tensor) -> Tensor:
        return part.T if self.transposed else part


def rules(config: TransformerConfig, names: Names) -> Iterator[Rule]:
    """How each tensor of a model is stored; a tied output matrix is not."""
    for ours, shape in our_shapes(config).items():
        if ours == "head.weight" and config.ties_head:
            continue
        theirs = names.theirs(ours, config.ties_head)
        transposed = names.transposed and ".blocks." in ours and len(shape) == 2
        stored = _parts(ours, shape, len(theirs), config)
        if transposed:
            stored = [part[::-1] for part in stored]
        if theirs[0] in names.row_vectors:
            stored = [(1, *shape)]
        stores = dict(zip(theirs, stored, strict=True))
        yield Rule(ours=ours, shape=shape, theirs=stores, transposed=transposed)


def _parts(ours: str, shape: Shape, count: int, config: TransformerConfig) -> list[Shape]:
    """Shapes of a tensor cut along its rows: queries, keys and values, or halves."""
    if count == 3:
        stack = config.encoder if ours.startswith("encoder.") else config.decoder
        assert stack is not None
        num_heads, kv_heads = stack.attention.num_heads, stack.attention.kv_heads
        return [(n * stack.head_dim, *shape[1:]) for n in (num_heads, kv_heads, kv_heads)]
    return [(shape[0] // count, *shape[1:])] * count


def our_shapes(config: TransformerConfig) -> dict[str, Shape]:
    """Names and shapes of the tensors of a model, without its weights."""
    with torch.device("meta"):
        transformer = Transformer(config)
    return {name: tuple(tensor.shape) for name, tensor in transformer.state_dict().items()}
