"""Prompts read by a compiled graph give what eager reading gives, one graph for all lengths."""

import pytest
import torch
from torch._dynamo.utils import counters

from gpt4o_lit.compression import Formats, round_
from gpt4o_lit.generation import SamplingConfig, generate
from gpt4o_lit.generation.step import FEWEST_READ, Step
from gpt4o_lit.model import KVCache, Transformer
from gpt4o_lit.model.weight_format import WeightFormat
from gpt4o_lit.tokenizer import ByteTokenizer
from tests.generation.test_decode import network
from tests.generation.test_step import NETWORKS, decoder

LONG = "what is read before anything is written, " * 5


def assert_reads_the_same(net: Transformer, rows: int, lengths: list[int]) -> None:
    """Parts of these lengths, one behind the other."""
    caches = [KVCache(net.config, rows, 300) for _ in range(2)]
    steps = [Step(net, 250, compiled=compiled) for compiled in (False, True)]
    row = torch.randint(250, (rows, sum(lengths)))
    for part in row.split(lengths, dim=1):
        wanted, found = (step.read(part, cache) for step, cache in zip(steps, caches, strict=True))
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    assert caches[0].used == caches[1].used == sum(lengths)
    for theirs, ours in zip(caches[0].keys, caches[1].keys, strict=True):
        torch.testing.assert_close(ours.numbers, theirs.numbers, atol=1e-4, rtol=0)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("name", NETWORKS)
@torch.inference_mode()
def test_one_graph_reads_all_lengths(name: str) -> None:
    net = decoder(**NETWORKS[name])
    assert_reads_the_same(net, 1, [130, 140])
    before = counters["stats"]["unique_graphs"]
    assert_reads_the_same(net, 1, [129])
    assert_reads_the_same(net, 1, [151, 143])
    assert counters["stats"]["unique_graphs"] == before == 2  # at first, and behind other tokens
    assert_reads_the_same(net, 3, [70, 50])


@pytest.mark.usefixtures("traced")
@torch.inference_mode()
def test_short_prompts_and_those_of_unequal_lengths_are_read_eagerly() -> None:
    net, before = decoder(), counters["stats"]["unique_graphs"]
    step = Step(net, 250, compiled=True)
    step.read(torch.zeros(1, FEWEST_READ - 1, dtype=torch.long), KVCache(net.config, 1, 300))
    documents = torch.zeros(2, 200, dtype=torch.long)
    documents[1, 100:] = -1
    cache = KVCache(net.config, 2, 300)
    step.read(torch.zeros_like(documents), cache, documents_BT=documents)
    assert cache.ragged
    assert counters["stats"]["unique_graphs"] == before


@pytest.mark.usefixtures("traced")
@torch.inference_mode()
def test_a_long_source_is_read_by_a_graph() -> None:
    net = network("encoder_decoder", max_seq_len=300)
    source, start = torch.randint(250, (1, 200)), torch.zeros(1, 1, dtype=torch.long)
    caches = [KVCache(net.config, 1, 20) for _ in range(2)]
    wanted, found = (
        Step(net, 250, compiled=compiled).read(start, cache, source)
        for compiled, cache in zip((False, True), caches, strict=True)
    )
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    for ours, theirs in zip(caches[1].cross, caches[0].cross, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert counters["stats"]["unique_graphs"] > 0


@pytest.mark.parametrize(
    "format",
    [
        None,
        WeightFormat(rounds_inputs=True),
        WeightFormat(bits=4, group_size=32),
        WeightFormat(number="float", rounds_inputs=True),
    ],
    ids=str,
)
def test_machine_code_reads_the_same(format: WeightFormat | None) -> None:
    torch.compiler.reset()
    net, tokenizer = decoder(), ByteTokenizer()
    if format is not None:
        round_(net, Formats(format=format).of(net))
    ids = torch.tensor([list(LONG.encode())])
    with torch.inference_mode():
        wanted, found = (
            Step(net, 250, compiled=compiled).read(ids, KVCache(net.config, 1, 300))
            for compiled in (False, True)
        )
    # An input that lies between two whole numbers may be rounded to the other one.
    most = 1e-4 if format is None else 0.02 * float(wanted.norm(dim=-1).max())
    torch.testing.assert_close(found, wanted, atol=most, rtol=0)
    config = SamplingConfig(max_new_tokens=3, temperature=0)
    assert generate(net, tokenizer, [LONG], config, compiled=True) == generate(
        net, tokenizer, [LONG], config
    )
