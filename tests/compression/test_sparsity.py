"""Schedules at their corners, and masks that hold."""

import pytest
import torch
from torch import nn

from gpt4o_lit.compression import Masks, SparsitySchedule, magnitude_masks
from gpt4o_lit.compression.sparsity import sparsity_of


def test_a_schedule_at_its_corners() -> None:
    cubic = SparsitySchedule(final=0.8, begin=100, end=200, every=30, initial=0.2)
    assert cubic.window(1000) == (100, 200)
    assert [step for step in range(300) if cubic.due(step, 1000)] == [100, 130, 160, 190, 200]
    assert cubic.sparsity(99, 1000) == 0
    assert cubic.sparsity(100, 1000) == pytest.approx(0.2)
    assert cubic.sparsity(150, 1000) == pytest.approx(0.8 - 0.6 / 8)
    assert cubic.sparsity(200, 1000) == cubic.sparsity(900, 1000) == 0.8
    linear = SparsitySchedule(final=0.8, shape="linear", begin=0.1, end=0.2)
    assert linear.window(1000) == (100, 200)
    assert linear.sparsity(150, 1000) == pytest.approx(0.4)
    once = SparsitySchedule(final=0.8, shape="one_shot", begin=0)
    assert [step for step in range(300) if once.due(step, 300)] == [0]
    assert once.sparsity(0, 300) == 0.8


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"final": 1.0}, r"final \(1.0\) must be at least 0 and below 1"),
        ({"final": -0.1}, "final"),
        ({"initial": 0.6}, "must not exceed final"),
        ({"every": 0}, r"every \(0\)"),
        ({"begin": -1}, "must not be negative"),
        ({"shape": "round"}, "choose from cubic"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparsitySchedule(**values)


def test_a_schedule_that_does_not_fit_the_run_is_refused() -> None:
    with pytest.raises(ValueError, match="must not come before begin"):
        SparsitySchedule(begin=50, end=20).window(100)
    with pytest.raises(ValueError, match=r"must come before the run's end \(step 100\)"):
        SparsitySchedule(begin=50, end=1).window(100)


def pruned(optimizer: type[torch.optim.Optimizer], **settings: float) -> tuple[nn.Linear, Masks]:
    """A layer that has learned ten steps, pruned by half and held."""
    layer = nn.Linear(8, 8)
    learner = optimizer(layer.parameters(), **settings)
    masks = Masks({"layer": layer.weight})
    masks.hold(learner)
    for step in range(20):
        if step == 10:
            masks.replace(magnitude_masks(masks.weights, 0.5))
        learner.zero_grad()
        layer(torch.randn(4, 8)).square().sum().backward()
        masks.zero_gradients_()
        learner.step()
    return layer, masks


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.1, "fused": True}),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
        (torch.optim.Muon, {"lr": 0.1}),
    ],
)
def test_what_is_pruned_stays_zero_whatever_the_optimizer_remembers(
    optimizer: type[torch.optim.Optimizer], settings: dict
) -> None:
    if optimizer is torch.optim.Muon:  # takes matrices alone
        layer = nn.Linear(8, 8, bias=False)
        learner: torch.optim.Optimizer = optimizer(layer.parameters(), **settings)
        masks = Masks({"layer": layer.weight})
        masks.hold(learner)
        masks.replace(magnitude_masks(masks.weights, 0.5))
        layer(torch.randn(4, 8)).square().sum().backward()
        learner.step()
    else:
        layer, masks = pruned(optimizer, **settings)
    assert int((layer.weight == 0).sum()) == 32
    assert not layer.weight[~masks.kept["layer"]].any()
    assert masks.sparsity == 0.5


def test_gradients_of_what_is_pruned_do_not_count() -> None:
    layer, masks = pruned(torch.optim.SGD, lr=0.1)
    layer(torch.randn(4, 8)).square().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad[~masks.kept["layer"]].any()
    masks.zero_gradients_()
    assert not layer.weight.grad[~masks.kept["layer"]].any()


def test_masks_come_back_from_a_checkpoint_at_a_bit_per_weight(tmp_path) -> None:
    weights = {"a": nn.Parameter(torch.randn(7, 9)), "b": nn.Parameter(torch.randn(3, 5))}
    masks = Masks(weights)
    masks.replace(magnitude_masks(weights, 0.3))
    torch.save(masks.state_dict(), tmp_path / "masks.pt")
    state = torch.load(tmp_path / "masks.pt", weights_only=True)
    assert {name: len(bits) for name, bits in state.items()} == {"a": 8, "b": 2}
    again = Masks(weights)
    again.load_state_dict(state)
    for name, mask in masks.kept.items():
        assert torch.equal(again.kept[name], mask)
    with pytest.raises(ValueError, match="differ in b"):
        Masks({"a": weights["a"]}).load_state_dict(state)


def test_the_sparsity_of_a_matrix_is_its_share_of_zeros() -> None:
    assert sparsity_of(torch.tensor([[0.0, 1.0], [-2.0, 0.0], [0.0, 0.5]])) == 0.5
    assert sparsity_of(torch.ones(3, 2)) == 0
