"""Wanda and SparseGPT: as their slow twins have them, and better than magnitude at what they do."""

from functools import partial

import pytest
import torch
from torch import Tensor

from gpt4o_lit.compression import (
    Pattern,
    Share,
    Targets,
    magnitude_masks,
    prune_blocks_,
    require_in_blocks,
    sparse_gpt_,
    wanda_,
)
from gpt4o_lit.compression import activation_aware as module
from gpt4o_lit.compression.activation_aware import Method
from gpt4o_lit.compression.calibration import blocks_in_turn, gram, measure_inputs, norm_squares
from gpt4o_lit.compression.second_order import DAMPING
from gpt4o_lit.model import Transformer
from tests.model.conftest import VOCAB
from tests.model.conftest import network as tiny
from tests.reference.activation_aware import sparse_gpt, wanda

HALF = Share(sparsity=0.5)
TWO_OF_FOUR = Share(sparsity=0.5, pattern=Pattern(2, 4))


def matrix_and_inputs(outputs: int = 12, inputs: int = 24) -> tuple[Tensor, Tensor]:
    """Inputs that differ in size and go together, as those of networks do."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(inputs, inputs, generator=generator)
    scales = torch.linspace(0.2, 3, inputs)[torch.randperm(inputs, generator=generator)]
    read = torch.randn(200, inputs, generator=generator) @ mixing * scales
    return torch.randn(outputs, inputs, generator=generator), read


@pytest.mark.parametrize(
    ("share", "pruned", "group"),
    [(HALF, 12, 24), (Share(sparsity=0.25), 6, 24), (TWO_OF_FOUR, 2, 4)],
)
def test_wanda_equals_its_twin(share: Share, pruned: int, group: int) -> None:
    weight, inputs = matrix_and_inputs()
    expected = wanda(weight, inputs, pruned, group)
    kept = wanda_(weight, norm_squares(inputs), share)
    assert torch.equal(weight, expected)
    assert torch.equal(kept, expected != 0)


@pytest.mark.parametrize("share", [HALF, Share(sparsity=0.8), TWO_OF_FOUR])
@pytest.mark.parametrize("columns", [128, 7, 5])
def test_sparse_gpt_equals_its_twin(
    share: Share, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given the same masks; columns that are pruned together change nothing but those."""
    monkeypatch.setattr(module, "COLUMNS", columns)
    weight, inputs = matrix_and_inputs()
    before = weight.clone()
    kept = sparse_gpt_(weight, gram(inputs), share)
    expected = sparse_gpt(before, inputs, kept, DAMPING)
    torch.testing.assert_close(weight.double(), expected, atol=2e-4, rtol=1e-3)
    assert (weight[~kept] == 0).all()
    assert int((~kept).sum()) == round(share.sparsity * weight.numel())
    if share.pattern is not None:
        assert (kept.view(-1, 4).sum(1) == 2).all()


@pytest.mark.parametrize("share", [HALF, TWO_OF_FOUR])
def test_what_a_layer_gives_changes_less_the_more_is_known(share: Share) -> None:
    """SparseGPT below Wanda below magnitude, as published."""
    weight, inputs = matrix_and_inputs(64, 96)
    wanted = inputs @ weight.T

    def error(pruned: Tensor) -> float:
        return float((inputs @ pruned.T - wanted).square().sum())

    by_size, by_inputs, by_surgery = weight.clone(), weight.clone(), weight.clone()
    if share.pattern is not None:
        by_size *= share.pattern.mask(weight.abs())
    else:
        by_size *= magnitude_masks({"a": weight}, 0.5, "row")["a"]
    wanda_(by_inputs, norm_squares(inputs), share)
    sparse_gpt_(by_surgery, gram(inputs), share)
    assert error(by_surgery) < 0.8 * error(by_inputs)
    assert error(by_inputs) < 0.9 * error(by_size)


def test_inputs_that_are_always_zero_are_pruned_first() -> None:
    weight, inputs = matrix_and_inputs()
    inputs[:, ::2] = 0
    for prune_, measure in ((wanda_, norm_squares), (sparse_gpt_, gram)):
        pruned = weight.clone()
        kept = prune_(pruned, measure(inputs), HALF)
        assert (pruned[:, ::2] == 0).all()
        assert kept[:, 1::2].all()
        assert pruned.isfinite().all()


@pytest.mark.parametrize("kind", ["decoder", "encoder", "encoder_decoder"])
def test_blocks_in_turn_give_what_the_network_gives(kind: str) -> None:
    network, forwards = network_and_forwards(kind)
    blocks = [name for name, _ in network.named_modules() if name[:-1].endswith("blocks.")]
    outputs: dict[str, list[Tensor]] = {name: [] for name in blocks}
    handles = [
        network.get_submodule(name).register_forward_hook(lambda *call, to=to: to.append(call[2]))
        for name, to in outputs.items()
    ]
    with torch.no_grad():
        for forward in forwards:
            forward()
        for handle in handles:
            handle.remove()
        found = {name: run() for name, _, run in blocks_in_turn(network, forwards)}
    assert list(found) == list(outputs)
    for name, theirs in outputs.items():
        for ours, their in zip(found[name], theirs, strict=True):
            torch.testing.assert_close(ours, their, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", ["wanda", "sparse_gpt"])
@pytest.mark.parametrize("kind", ["decoder", "encoder", "encoder_decoder"])
def test_each_block_is_pruned_on_what_pruned_ones_give(kind: str, method: Method) -> None:
    """As if block after block were pruned by whole forwards of the network so far."""
    network, forwards = network_and_forwards(kind)
    twin, twin_forwards = network_and_forwards(kind)
    twin.load_state_dict(network.state_dict())
    weights = Targets().weights(network)
    masks: dict[str, Tensor] = {}
    for part in prune_blocks_(network, weights, forwards, method, HALF, lambda sums: sums):
        masks |= part
    assert masks.keys() == weights.keys()
    measure, prune_ = (norm_squares, wanda_) if method == "wanda" else (gram, sparse_gpt_)
    twin_weights = Targets().weights(twin)
    with torch.no_grad():
        for block in dict.fromkeys(name.rsplit(".", 2)[0] for name in twin_weights):
            inside = [name for name in twin_weights if name.startswith(f"{block}.")]
            measures = dict.fromkeys(inside, measure)
            sums = measure_inputs(twin, measures, lambda: [each() for each in twin_forwards])
            for name, measured in sums.items():
                prune_(twin_weights[name], measured, HALF)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, twin_weights[name], atol=1e-5, rtol=0)
        assert int((~masks[name]).sum()) == weight.numel() // 2


def test_matrices_outside_of_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tokens is in no block, but wanda .* targets\.kinds"):
        require_in_blocks(["decoder.blocks.0.feed_forward.up", "tokens"], "wanda")


def network_and_forwards(kind: str) -> tuple[Transformer, list[partial[Tensor]]]:
    """A tiny network in evaluation mode, and two batches for it to read."""
    torch.manual_seed(0)
    network = tiny(kind)
    rows = torch.randint(0, VOCAB, (3, 8, 9))
    source = {"source_BS": rows[2]} if kind == "encoder_decoder" else {}
    return network, [partial(network, row, **source) for row in rows[:2]]
