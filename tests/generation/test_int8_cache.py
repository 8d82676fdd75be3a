"""Keys and values as whole numbers: a quarter of the memory, and nearly the same scores."""

import pytest
import torch
from torch import Tensor

from gpt4o_lit.generation.step import Step
from gpt4o_lit.model import KVCache, Transformer
from gpt4o_lit.model.weight_format import round_inputs
from tests.model.conftest import VOCAB, network


def scores(net: Transformer, dtype: torch.dtype, *, compiled: bool, ragged: bool) -> Tensor:
    """Behind a prompt and three more tokens."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, VOCAB, (2, 9), generator=generator)
    documents = torch.zeros(2, 9, dtype=torch.long)
    if ragged:
        documents[1, 6:] = -1
    cache = KVCache(net.config, 2, 32, "cpu", dtype)
    source = {} if net.encoder is None else {"source_BS": tokens.flip(1)}
    with torch.inference_mode():
        net.hidden(tokens, documents_BT=documents if ragged else None, cache=cache, **source)
        step = Step(net, VOCAB, compiled=compiled)
        return torch.stack([step(tokens[:, place, None], cache) for place in range(3)])


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
def test_scores_are_nearly_those_of_floats(kind: str, ragged: bool) -> None:
    net = network(kind, attention={"num_kv_heads": 2})
    exact, rounded = (
        scores(net, dtype, compiled=False, ragged=ragged) for dtype in (torch.float32, torch.int8)
    )
    apart = (rounded - exact).norm() / exact.norm()
    assert 1e-4 < apart < 0.02


def test_compiled_steps_read_whole_numbers_too() -> None:
    net = network("decoder")
    eager, compiled = (scores(net, torch.int8, compiled=c, ragged=False) for c in (False, True))
    torch.testing.assert_close(compiled, eager, atol=2e-3, rtol=1e-3)


def test_vectors_come_back_as_they_were_rounded_and_rows_can_be_chosen() -> None:
    net = network("decoder")
    cache = KVCache(net.config, 2, 16, "cpu", torch.int8)
    floats = KVCache(net.config, 2, 16)
    kept = sum(tensor.nbytes for tensor in cache.keys[0].tensors)
    assert kept < 0.4 * floats.keys[0].numbers.nbytes  # of 8 numbers; of 64 it is 0.27
    keys, values = torch.randn(2, 2, 5, 4, 8)
    for layer in range(2):
        read, _ = cache.write(layer, keys, values)
        numbers, steps = round_inputs(keys)
        torch.testing.assert_close(read, numbers * steps, atol=0, rtol=0)
    cache.advance(5, None)
    cache.select(torch.tensor([1, 1, 0]))
    chosen = cache.keys[1].read(5)
    torch.testing.assert_close(chosen, (numbers * steps)[[1, 1, 0]], atol=0, rtol=0)
