"""Whole numbers for weights: to nearest, and by GPTQ as its slow twin has it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gpt4o_lit.compression import rounding as module
from gpt4o_lit.compression.calibration import gram
from gpt4o_lit.compression.rounding import gptq, round_to_nearest
from gpt4o_lit.compression.second_order import DAMPING
from gpt4o_lit.model.weight_format import WeightFormat
from tests.compression.test_activation_aware import matrix_and_inputs
from tests.reference.rounding import gptq as slow_gptq

FORMATS = [
    WeightFormat(bits=8),
    WeightFormat(bits=8, group_size=8),
    WeightFormat(bits=4),
    WeightFormat(bits=4, group_size=8),
]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.floats(1e-4, 1e4), which=st.integers(0, 3))
def test_rounding_is_off_by_half_a_step_at_most(seed: int, size: float, which: int) -> None:
    """But for weights across 0 from the farthest one and nearly as far: by a step at most."""
    format = FORMATS[which]
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(6, 16, generator=generator) * size
    numbers, scales = round_to_nearest(weight, format)
    assert numbers.dtype == torch.int8
    assert format.lowest <= int(numbers.min()) <= int(numbers.max()) <= format.highest
    apart = (format.restore(numbers, scales) - weight).abs()
    # A bfloat16 scale is rounded too, by up to 2 ** -9 of the largest number of steps.
    slack = -format.lowest * 2**-8
    steps = format.spread(scales, 16)
    across = weight / steps > format.highest
    assert (apart <= (0.5 + 0.5 * across + slack) * steps.abs()).all()
    farthest = format.grouped(weight).abs().argmax(-1, keepdim=True)
    assert (format.grouped(numbers).gather(-1, farthest) == format.lowest).all()


@pytest.mark.parametrize("format", FORMATS)
def test_what_was_rounded_rounds_to_itself(format: WeightFormat) -> None:
    weight = torch.randn(6, 16)
    numbers, scales = round_to_nearest(weight, format)
    assert torch.equal(format.round(format.restore(numbers, scales), scales), numbers)


@pytest.mark.parametrize("format", FORMATS)
def test_a_row_of_zeros_stays_zero(format: WeightFormat) -> None:
    numbers, scales = round_to_nearest(torch.zeros(2, 16), format)
    assert not numbers.any()
    assert not format.restore(numbers, scales).any()


@pytest.mark.parametrize("columns", [128, 7])
@pytest.mark.parametrize("format", FORMATS)
def test_gptq_equals_its_twin(
    format: WeightFormat, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COLUMNS", columns)
    weight, inputs = matrix_and_inputs()
    numbers, scales = gptq(weight, gram(inputs), format)
    steps = format.spread(scales, 24)
    expected = slow_gptq(weight, gram(inputs), steps, format.lowest, format.highest, DAMPING)
    # A weight that lies between two numbers may fall to either side in float32.
    assert (numbers != expected).float().mean() <= 0.01
    assert (numbers - expected).abs().max() <= 1


@pytest.mark.parametrize("format", FORMATS)
def test_gptq_changes_less_of_what_a_layer_gives(format: WeightFormat) -> None:
    weight, inputs = matrix_and_inputs(64, 96)

    def error(numbers: Tensor, scales: Tensor) -> float:
        return float((inputs @ (format.restore(numbers, scales) - weight).T).square().sum())

    assert error(*gptq(weight, gram(inputs), format)) < 0.7 * error(
        *round_to_nearest(weight, format)
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bits": 3}, r"bits \(3\) must be 4 or 8"),
        ({"group_size": 7}, r"group_size \(7\) must be even"),
        ({"group_size": 0}, r"group_size \(0\) must be even"),
        ({"number": "complex"}, r"number \(complex\) must be int or float"),
        ({"number": "float"}, r"number \(float\) .* rounds_inputs False; set them to 8, null"),
    ],
)
def test_formats_that_do_not_exist_are_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightFormat(**values)  # type: ignore[arg-type]


def test_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a\.up: its 48 inputs must be a multiple of group_size"):
        WeightFormat(group_size=32).require_width("a.up", 48)
