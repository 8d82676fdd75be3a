"""Weights of whole numbers: every kernel gives the product, every place that reads them agrees."""

from itertools import product

import pytest
import torch
from torch import Tensor

from gpt4o_lit.compression import Formats, round_
from gpt4o_lit.generation.step import Step
from gpt4o_lit.model import KVCache, Transformer
from gpt4o_lit.model import quantized as module
from gpt4o_lit.model.quantized import (
    QuantizedWeight,
    formats_of,
    kernels_of,
    pack_nibbles,
    unpack_nibbles,
)
from gpt4o_lit.model.weight_format import WeightFormat, round_inputs
from tests.model.conftest import VOCAB, network

FORMATS = [
    WeightFormat(),
    WeightFormat(rounds_inputs=True),
    WeightFormat(bits=4, group_size=32),
    WeightFormat(bits=4, group_size=32, rounds_inputs=True),
    WeightFormat(bits=8, group_size=32),
    WeightFormat(number="float", rounds_inputs=True),
]
EXACT = {"sums", "int8", "float8"}  # the others multiply in bfloat16


def product_of(weight: QuantizedWeight, x: Tensor) -> Tensor:
    """As the numbers say, in float64."""
    if weight.format.rounds_inputs:
        numbers, steps = round_inputs(x, weight.format.number)
        x = numbers.double() * steps
    return x.double() @ weight.restored().double().T


def apart(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_every_kernel_gives_the_product(format: WeightFormat) -> None:
    weight = QuantizedWeight.rounding(torch.randn(100, 64), format)
    bias = torch.randn(100)
    for rows in (1, 5, 40):
        x = torch.randn(rows, 64)
        expected = product_of(weight, x) + bias
        exact = weight.kernel(rows, compiled=False) in EXACT
        assert apart(weight.product(x, bias), expected) < (1e-6 if exact else 1e-2)


@pytest.mark.parametrize("format", [FORMATS[1], FORMATS[4]], ids=str)
def test_compiled_sums_are_the_product(format: WeightFormat) -> None:
    weight, x = QuantizedWeight.rounding(torch.randn(100, 64), format), torch.randn(2, 64)
    assert weight.kernel(2, compiled=True) == "sums"
    with torch.inference_mode():
        found = torch.compile(weight.product, dynamic=False)(x, None)
    assert apart(found, product_of(weight, x)) < 1e-6


@pytest.mark.parametrize(
    ("format", "rows", "compiled", "kernel"),
    [
        (FORMATS[0], 1, True, "sums"),
        (FORMATS[0], 64, True, "restored"),
        (FORMATS[1], 2, True, "sums"),
        (FORMATS[1], 1, False, "int8"),
        (FORMATS[1], 512, False, "int8"),
        (FORMATS[2], 1, True, "int4"),
        (FORMATS[2], 512, False, "restored"),
        (FORMATS[4], 1, False, "restored"),
        (FORMATS[5], 1, True, "float8"),
        (FORMATS[5], 512, False, "float8"),
    ],
)
def test_which_kernel_runs_is_decided_by_format_and_rows(
    format: WeightFormat, rows: int, compiled: bool, kernel: str
) -> None:
    weight = QuantizedWeight.rounding(torch.randn(64, 32), format)
    assert weight.kernel(rows, compiled=compiled) == kernel


def test_a_kernel_that_computes_something_else_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = torch._int_mm
    monkeypatch.setattr(torch, "_int_mm", lambda x, y: right(x, y) + 10_000)
    weight = QuantizedWeight.rounding(torch.randn(64, 32), WeightFormat(rounds_inputs=True))
    with pytest.raises(RuntimeError, match=r"_int_mm .* does not give the product"):
        weight.product(torch.randn(3, 32), None)


def test_nibbles_are_what_was_packed() -> None:
    numbers = torch.tensor(list(product(range(-8, 8), repeat=2)), dtype=torch.int8)
    packed = pack_nibbles(numbers)
    assert packed.dtype == torch.uint8
    assert packed.shape == (256, 1)
    assert len(packed.unique()) == 256
    assert torch.equal(unpack_nibbles(packed), numbers)


def quantized(kind: str, format: WeightFormat, **fields: object) -> tuple[Transformer, Transformer]:
    """A network of whole numbers, and one of floats whose weights are what these stand for."""
    net, same = network(kind, **fields), network(kind, **fields)  # type: ignore[arg-type]
    same.load_state_dict(net.state_dict())
    round_(net, Formats(format=format).of(net))
    for name in formats_of(net):
        layer = same.get_submodule(name)
        layer.weight.data = net.get_submodule(name).weight.restored()  # type: ignore
    return net, same


@pytest.mark.parametrize("kind", ["decoder", "encoder", "encoder_decoder"])
def test_networks_of_whole_numbers_compute_what_they_stand_for(kind: str) -> None:
    net, same = quantized(kind, WeightFormat(bits=4, group_size=32))
    tokens = torch.randint(0, VOCAB, (2, 9))
    source = {"source_BS": tokens.flip(1)} if kind == "encoder_decoder" else {}
    assert {"tokens", *formats_of(net)} == set(formats_of(net))
    assert net.head.weight is net.tokens.weight
    with torch.no_grad():
        assert apart(net(tokens, **source), same(tokens, **source)) < 0.02
        assert torch.equal(net.tokens(tokens), same.tokens(tokens))
        assert torch.equal(net.head.matrix(), same.head.weight)
    assert not [name for name, _ in net.named_parameters() if name.endswith("qkv.weight")]


@pytest.mark.parametrize(
    "format", [FORMATS[2], pytest.param(FORMATS[1], marks=pytest.mark.slow)], ids=str
)
def test_compiled_steps_write_the_same(format: WeightFormat) -> None:
    net, _ = quantized("decoder", format)
    tokens = torch.randint(0, VOCAB, (1, 6))
    found = []
    for compiled in (False, True):
        cache = KVCache(net.config, 1, 32)
        with torch.inference_mode():
            net.hidden(tokens, cache=cache)
            step = Step(net, VOCAB, compiled=compiled)
            found.append(torch.stack([step(tokens[:, :1], cache) for _ in range(3)]))
    assert apart(found[1], found[0]) < 0.02
    assert kernels_of(net, 1) <= set(module.KERNELS.values())


def test_other_dtypes_and_copies_compute_anew() -> None:
    net, same = quantized("decoder", WeightFormat(bits=4, group_size=32))
    tokens = torch.randint(0, VOCAB, (2, 9))
    with torch.no_grad():
        net(tokens)
        net.bfloat16()
        assert net.head.weight.dtype == torch.bfloat16
        assert apart(net(tokens).float(), same(tokens)) < 0.05
