"""One weight at a time, put back bit by bit; and formats that fit a budget."""

from itertools import product

import pytest
import torch

from gpt4o_lit.compression import Targets
from gpt4o_lit.compression.sensitivity import (
    Choice,
    choose_formats,
    loss_rises,
    pruned_to,
    rounded_to,
    stored_bytes,
)
from gpt4o_lit.model.weight_format import WeightFormat
from tests.model.conftest import VOCAB, network


def test_each_weight_is_changed_alone_and_put_back() -> None:
    net = network("decoder")
    tokens = torch.randint(0, VOCAB, (2, 9))
    before = {name: weight.clone() for name, weight in net.state_dict().items()}

    def loss() -> float:
        return float(net(tokens).square().mean())

    weights = Targets().weights(net)
    changes = {"int4": rounded_to(WeightFormat(bits=4)), "pruned": pruned_to(0.75)}
    found = {(layer, label): rise for layer, label, rise in loss_rises(weights, changes, loss)}
    assert found.keys() == set(product(weights, changes))
    for name, weight in net.state_dict().items():
        assert torch.equal(weight, before[name])
    for (layer, label), rise in found.items():
        other = network("decoder")
        other.load_state_dict(before)
        weight = Targets().weights(other)[layer]
        weight.data = changes[label](weight.data)
        assert rise == pytest.approx(float(other(tokens).square().mean()) - loss(), abs=1e-6)


def test_pruning_takes_the_smallest() -> None:
    weight = torch.randn(8, 16)
    pruned = pruned_to(0.75)(weight)
    assert int((pruned == 0).sum()) == 96
    assert weight[pruned == 0].abs().max() < pruned[pruned != 0].abs().min()


def test_bytes_are_those_of_numbers_and_scales() -> None:
    weight = torch.randn(8, 64)
    assert stored_bytes(weight, None) == 4 * 512
    assert stored_bytes(weight, WeightFormat()) == 512 + 2 * 8
    assert stored_bytes(weight, WeightFormat(bits=4, group_size=32)) == 256 + 2 * 8 * 2


def test_chosen_formats_fit_the_budget_and_are_near_the_best_of_all() -> None:
    torch.manual_seed(1)
    sizes = {"float32": 4.0, "int8": 1.0, "int4": 0.5}
    choices = {
        f"layer{number}": [
            Choice(label, None, size * 100, rise * hurt)
            for (label, size), rise in zip(sizes.items(), (0.0, 0.1, 1.0), strict=True)
        ]
        for number, hurt in enumerate(torch.rand(6).tolist())
    }
    every = [dict(zip(choices, each, strict=True)) for each in product(*choices.values())]

    def rise(chosen: dict[str, Choice]) -> float:
        return sum(each.rise for each in chosen.values())

    def num_bytes(chosen: dict[str, Choice]) -> float:
        return sum(each.num_bytes for each in chosen.values())

    for budget in (2400, 1200, 600, 450, 300):
        chosen = choose_formats(choices, budget)
        assert num_bytes(chosen) <= budget
        best = min(rise(each) for each in every if num_bytes(each) <= budget)
        assert rise(chosen) <= 1.5 * best + 1e-9
    with pytest.raises(ValueError, match=r"budget of 299 bytes is below the 300"):
        choose_formats(choices, 299)
