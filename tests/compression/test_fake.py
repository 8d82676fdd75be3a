"""Rounding that training feels: forward as converted, backward as written."""

import pytest
import torch
from torch import Tensor

from gpt4o_lit.compression.fake import (
    FakeQuantization,
    fake_quantize,
    fake_quantize_inputs,
    learned_quantize,
)
from gpt4o_lit.compression.rounding import round_to_nearest
from gpt4o_lit.model.weight_format import WeightFormat
from tests.reference.rounding import fake, learned_step

FORMATS = [
    WeightFormat(bits=8),
    WeightFormat(bits=4),
    WeightFormat(bits=4, group_size=8),
]


def group_of(format: WeightFormat) -> int:
    return format.group_size or 24


@pytest.mark.parametrize("format", FORMATS)
def test_weights_are_rounded_as_the_twin_has_it(format: WeightFormat) -> None:
    weight = torch.randn(5, 24, requires_grad=True)
    rounded = fake_quantize(weight, format)
    expected = fake(weight.detach(), group_of(format), format.lowest, format.highest)
    torch.testing.assert_close(rounded, expected, atol=1e-6, rtol=1e-6)
    slope = torch.randn(5, 24)
    rounded.backward(slope)
    assert torch.equal(weight.grad, slope)  # type: ignore[arg-type]


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("format", FORMATS)
def test_what_training_sees_is_what_conversion_gives(format: WeightFormat, learned: bool) -> None:
    weight, x = torch.randn(5, 24), torch.randn(3, 24)
    layer = FakeQuantization(format, weight, "learned" if learned else "of_weight")
    if layer.log_scales is not None:
        layer.log_scales.data -= 0.2
    assert layer.inputs(x) is x
    prepared = layer.weight(weight)
    converted = layer.scales_of(weight)
    restored = format.restore(format.round(weight, converted), converted)
    torch.testing.assert_close(prepared, restored, atol=1e-6, rtol=1e-6)
    some = torch.tensor([[3, 0], [3, 4]])
    assert torch.equal(layer.rows(some, weight), prepared[some])
    if not learned:
        numbers, their_scales = round_to_nearest(weight, format)
        assert torch.equal(format.restore(numbers, their_scales), restored)


@pytest.mark.parametrize("format", FORMATS)
def test_learned_scales_have_the_slopes_of_the_paper(format: WeightFormat) -> None:
    group = group_of(format)
    weight = torch.randn(5, 24)
    scales = (format.scales(weight) * 0.7).bfloat16().float()  # some weights lie beyond the range
    ours = [weight.clone().requires_grad_(), scales.clone().requires_grad_()]
    theirs = [weight.clone().requires_grad_(), scales.clone().requires_grad_()]
    one = learned_quantize(ours[0], ours[1], format)
    two = learned_step(theirs[0], theirs[1], group, format.lowest, format.highest)
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
    slope = torch.randn(5, 24)
    one.backward(slope)
    two.backward(slope)
    for own, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.grad, their.grad, atol=1e-4, rtol=1e-4)
    assert (ours[0].grad == 0).any()


def test_frozen_scales_stay_while_the_weight_grows() -> None:
    format = WeightFormat(bits=4, group_size=8)
    weight = torch.randn(5, 24)
    layer = FakeQuantization(format, weight, "frozen")
    assert torch.equal(layer.weight(weight), fake_quantize(weight, format))
    layer.follow_(weight)
    layer.freeze_()
    assert torch.equal(layer.weight(weight), fake_quantize(weight, format))
    assert torch.equal(layer.scales_of(2 * weight), format.scales(weight))
    assert layer.weight(2 * weight).abs().max() < 1.2 * weight.abs().max()


def test_before_it_is_active_nothing_is_rounded() -> None:
    format = WeightFormat(bits=4, rounds_inputs=True)
    weight, x = torch.randn(5, 24), torch.randn(3, 24)
    layer = FakeQuantization(format, weight)
    layer.active = False
    assert layer.weight(weight) is weight
    assert layer.inputs(x) is x
    assert torch.equal(layer.rows(torch.tensor([1]), weight), weight[1:2])


def test_inputs_are_rounded_token_by_token() -> None:
    x = torch.randn(2, 3, 10, requires_grad=True)
    rounded = fake_quantize_inputs(x)
    for token, ours in zip(x.detach().flatten(0, 1), rounded.flatten(0, 1), strict=True):
        step = float(token.abs().max()) / 127
        expected = torch.tensor([round(float(value) / step) for value in token]) * step
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)
    rounded.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))  # type: ignore[arg-type]
    zeros: Tensor = fake_quantize_inputs(torch.zeros(1, 4))
    assert not zeros.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("learned", [False, True])
def test_compiled_it_is_the_same(dtype: torch.dtype, learned: bool) -> None:
    format = WeightFormat(bits=4, group_size=8, rounds_inputs=True)
    weight = torch.randn(5, 24, dtype=dtype, requires_grad=True)
    layer = FakeQuantization(format, weight, "learned" if learned else "of_weight")

    def product(x: Tensor) -> Tensor:
        return (layer.inputs(x) @ layer.weight(weight).T).square().sum()

    x = torch.randn(4, 24, dtype=dtype)
    slopes = []
    for function in (product, torch.compile(product)):
        weight.grad = None
        function(x).backward()
        slopes.append(weight.grad)
    torch.testing.assert_close(*slopes, atol=1e-3, rtol=2e-2 if dtype == torch.bfloat16 else 1e-3)
