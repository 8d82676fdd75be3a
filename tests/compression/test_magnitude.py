"""Masks of magnitude: as the obvious way has them, and exact to the element."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gpt4o_lit.compression import Pattern, SparsitySchedule, magnitude_masks
from gpt4o_lit.compression import magnitude as module
from tests.reference.magnitude import global_masks


def matrices(seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (6, 8), "b": (5, 4), "c": (1, 12)}
    return {
        name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()
    }


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sparsity=st.floats(0, 0.999),
    levels=st.integers(1, 50),
)
def test_global_masks_equal_a_sort_of_everything(seed: int, sparsity: float, levels: int) -> None:
    """Few levels make many equal magnitudes, also across the border."""
    weights = {name: (w * levels).round() / levels for name, w in matrices(seed).items()}
    ours, theirs = magnitude_masks(weights, sparsity), global_masks(weights, sparsity)
    for name, mask in theirs.items():
        assert torch.equal(ours[name], mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_chunks_change_nothing(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = matrices(1, dtype)
    whole = magnitude_masks(weights, 0.4)
    monkeypatch.setattr(module, "CHUNK", 7)
    for name, mask in magnitude_masks(weights, 0.4).items():
        assert torch.equal(mask, whole[name])
        assert torch.equal(mask, global_masks(weights, 0.4)[name])


@pytest.mark.parametrize("sparsity", [0.0, 0.125, 0.5, 0.77, 0.99])
def test_the_share_is_exact_in_every_scope(sparsity: float) -> None:
    weights = {"a": torch.randn(40, 56), "b": torch.randn(24, 40)}
    total = sum(weight.numel() for weight in weights.values())
    masks = magnitude_masks(weights, sparsity, "global")
    pruned = {name: int((~mask).sum()) for name, mask in masks.items()}
    assert sum(pruned.values()) == round(sparsity * total)
    for name, mask in magnitude_masks(weights, sparsity, "layer").items():
        assert int((~mask).sum()) == round(sparsity * weights[name].numel())
    for mask in magnitude_masks(weights, sparsity, "row").values():
        each_row = (~mask).sum(1)
        assert torch.equal(each_row, torch.full_like(each_row, round(sparsity * mask.shape[1])))


@pytest.mark.parametrize("scope", ["global", "layer", "row"])
def test_masks_of_what_is_masked_are_the_same(scope: module.Scope) -> None:
    weights = matrices(2)
    masks = magnitude_masks(weights, 0.5, scope)
    again = magnitude_masks({name: w * masks[name] for name, w in weights.items()}, 0.5, scope)
    for name, mask in masks.items():
        assert torch.equal(again[name], mask)


@pytest.mark.parametrize("text", ["2:4", "1:4", "4:8", "3:7"])
def test_a_pattern_keeps_the_n_largest_of_every_group(text: str) -> None:
    pattern = Pattern.parse(text)
    scores = torch.rand(6, 7 * 8)
    mask = pattern.mask(scores)
    groups, kept = scores.view(-1, pattern.group), mask.view(-1, pattern.group)
    assert (kept.sum(1) == pattern.kept).all()
    least_kept = groups.masked_fill(~kept, 2).amin(1)
    most_pruned = groups.masked_fill(kept, -1).amax(1)
    assert (least_kept >= most_pruned).all()
    assert pattern.sparsity == pytest.approx(float((~mask).float().mean()))


@pytest.mark.parametrize(
    ("text", "message"),
    [("2-4", "must be N:M"), ("4:4", "less than all"), ("0:4", "more than none"), ("2:", "N:M")],
)
def test_a_pattern_that_prunes_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pattern.parse(text)


def test_a_pattern_refuses_rows_and_schedules_that_do_not_fit() -> None:
    pattern = Pattern.parse("2:4")
    with pytest.raises(ValueError, match=r"decoder\.x: its 6 inputs must be a multiple of M"):
        pattern.require_width("decoder.x", 6)
    with pytest.raises(ValueError, match=r"set schedule\.shape to one_shot"):
        pattern.require_schedule(SparsitySchedule(final=0.5))
    with pytest.raises(ValueError, match=r"schedule\.final to 0\.5"):
        pattern.require_schedule(SparsitySchedule(final=0.6, shape="one_shot"))
