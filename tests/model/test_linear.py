"""Products of a few rows, compiled for a CPU, are those of PyTorch."""

import pytest
import torch
from torch import nn

from gpt4o_lit.model.linear import MOST_ROWS, Linear, pack_
from gpt4o_lit.model.sums import SUMS_ROWS

ROWS = [1, SUMS_ROWS, SUMS_ROWS + 1, 8, MOST_ROWS + 1]


def layer(dtype: torch.dtype) -> Linear:
    return Linear(48, 96).to(dtype).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", ROWS)
@torch.inference_mode()
def test_each_way_gives_the_same_product(dtype: torch.dtype, rows: int) -> None:
    torch.compiler.reset()
    part, x = layer(dtype), torch.randn(rows, 1, 48).to(dtype)
    pack_(part, rows)
    assert (part.packed is not None) == (SUMS_ROWS < rows <= MOST_ROWS and can_pack(dtype))
    compiled = torch.compile(lambda x: part(x), backend="aot_eager")
    expected = nn.functional.linear(x.double(), part.weight.double(), part.bias.double())
    close = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.02, "rtol": 0.02}
    torch.testing.assert_close(compiled(x).double(), expected, **close)


def can_pack(dtype: torch.dtype) -> bool:
    return dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


@torch.inference_mode()
def test_weights_that_changed_are_packed_anew() -> None:
    with torch.inference_mode(False):
        part = layer(torch.float32)
    pack_(part, 4)
    first = part.packed
    pack_(part, 8)
    assert part.packed is first  # nothing has changed
    with torch.inference_mode(False), torch.no_grad():
        part.weight.mul_(2.0)
    pack_(part, 4)
    assert part.packed is not first
    torch.compiler.reset()
    x = torch.randn(4, 48)
    compiled = torch.compile(lambda x: part(x), backend="aot_eager")
    torch.testing.assert_close(compiled(x), part(x))


def test_packing_changes_neither_state_nor_training() -> None:
    part, x = layer(torch.float32), torch.randn(4, 48)
    names = list(part.state_dict())
    with torch.inference_mode():
        pack_(part, 4)
    assert list(part.state_dict()) == names
    with torch.no_grad():
        part.weight.zero_()
    assert torch.equal(part(x), part.bias.expand(4, -1))


@torch.inference_mode()
def test_no_rows_at_all_are_no_mistake() -> None:
    """A process has none in the last batch of a validation that others have rows of."""
    torch.compiler.reset()
    part = layer(torch.float32)
    pack_(part, 4)
    compiled = torch.compile(lambda x: part(x), backend="aot_eager")
    assert compiled(torch.empty(0, 7, 48)).shape == (0, 7, 96)
