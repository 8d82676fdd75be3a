"""Parts go in the order of a slow twin, that fits what stays anew for each that might go next."""

from functools import partial

import pytest
import torch
from torch import Tensor

from gpt4o_lit.compression import Cut, choose, cut_, measure_importance, reconstruction, refit_
from gpt4o_lit.compression.reconstruction import removal_errors
from gpt4o_lit.compression.second_order import DAMPING
from gpt4o_lit.model import FeedForwardConfig, Transformer
from gpt4o_lit.model.feed_forward import FeedForward, GatedFeedForward
from tests.compression.test_importance import losses_of
from tests.compression.test_structure import ATTENTION, KINDS, modules, run
from tests.model.conftest import network, tokens

__all__ = ["tokens"]  # a fixture


def error_without(weight_OI: Tensor, hessian_II: Tensor, gone: list[int]) -> float:
    """The least of the damped squared error of a layer that reads nothing of some inputs."""
    kept = [i for i in range(len(hessian_II)) if i not in gone]
    among, between = hessian_II[kept][:, kept], hessian_II[kept][:, gone]
    change_OI = torch.zeros_like(weight_OI)
    change_OI[:, gone] = -weight_OI[:, gone]
    change_OI[:, kept] = weight_OI[:, gone] @ torch.linalg.solve(among, between).T
    return float(torch.einsum("oi,ij,oj->", change_OI, hessian_II, change_OI))


def twin(weight_OI: Tensor, gram_II: Tensor, width: int) -> Tensor:
    """As `removal_errors`, by trying all that is left each time."""
    weight_OI, hessian_II = weight_OI.double(), gram_II.double().clone()
    diagonal = hessian_II.diagonal()
    diagonal += DAMPING * diagonal.mean()
    parts = [list(range(start, start + width)) for start in range(0, len(gram_II), width)]
    errors, gone, left = torch.zeros(len(parts)), [], list(range(len(parts)))
    while left:
        found = [(error_without(weight_OI, hessian_II, gone + parts[p]), p) for p in left]
        errors[min(found)[1]] = min(found)[0]
        gone += parts[min(found)[1]]
        left.remove(min(found)[1])
    return errors


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_errors_are_those_of_the_twin(width: int, seed: int) -> None:
    torch.manual_seed(seed)
    x_MI = torch.randn(60, 12) @ torch.randn(12, 12)
    weight_OI = torch.randn(5, 12)
    gram_II = x_MI.T @ x_MI
    found = removal_errors(weight_OI, gram_II, width)
    torch.testing.assert_close(found, twin(weight_OI, gram_II, width), rtol=1e-3, atol=1e-2)


def test_inputs_that_are_always_zero_go_first() -> None:
    x_MI = torch.randn(50, 6)
    x_MI[:, [1, 4]] = 0
    errors = removal_errors(torch.randn(3, 6), x_MI.T @ x_MI, 1)
    assert errors.isfinite().all()
    assert set(errors.topk(2, largest=False).indices.tolist()) == {1, 4}


def test_more_parts_than_rounds_go_several_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x_MI, weight_OI = torch.randn(90, 21), torch.randn(4, 21)
    one_by_one = removal_errors(weight_OI, x_MI.T @ x_MI, 1)
    monkeypatch.setattr(reconstruction, "ROUNDS", 10)
    errors = removal_errors(weight_OI, x_MI.T @ x_MI, 1)
    assert len(errors.unique()) == 7  # three at a time
    assert (errors > 0).all()
    # In the end all is gone, whoever went with whom.
    torch.testing.assert_close(errors.max(), one_by_one.max(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("kind", KINDS)
def test_every_head_and_channel_has_a_score(kind: str, attention: dict[str, object]) -> None:
    net = network(kind, attention=attention)
    losses = losses_of(net)
    found = measure_importance(net, losses, "reconstruction")
    by_size = measure_importance(net, losses, "activation")
    for ours, theirs in ((found.heads, by_size.heads), (found.channels, by_size.channels)):
        assert ours.keys() == theirs.keys()
        for name, scores in ours.items():
            assert scores.shape == theirs[name].shape
            assert (scores > 0).all()
    assert torch.equal(found.features, by_size.features)
    for side, blocks in found.blocks.items():
        assert torch.equal(blocks, by_size.blocks[side])


def test_processes_share_what_they_read() -> None:
    """Two that each read a batch, and add their sums, find what one finds that reads both."""
    net = network("decoder")
    losses = losses_of(net, 2)
    of_other: list[Tensor] = []

    def noted(sums: Tensor) -> Tensor:
        of_other.append(sums.clone())
        return sums

    measure_importance(net, losses[1:], "reconstruction", noted)
    shared = measure_importance(
        net, losses[:1], "reconstruction", lambda sums: sums + of_other.pop(0)
    )
    alone = measure_importance(net, losses, "reconstruction")
    assert not of_other
    torch.testing.assert_close(shared.features, alone.features)
    for name, scores in alone.heads.items():
        torch.testing.assert_close(shared.heads[name], scores, rtol=1e-3, atol=0)


def test_of_copies_one_stays(tokens: Tensor) -> None:
    """Half of the channels are scaled copies of the others: to cut half of all changes next to
    nothing, where the slope of the loss takes pairs that are small, and leaves others twice."""
    net = network("decoder", feed_forward=FeedForwardConfig(ffn_dim=64)).double()
    for part in modules(net, FeedForward, GatedFeedForward).values():
        up = part.gate_up if isinstance(part, GatedFeedForward) else part.up
        halves = up.weight.data.view(-1, 2, 32, up.in_features)
        halves[:, 1] = halves[:, 0]
    expected = run(net, tokens)
    errors = {}
    for by in ("taylor", "reconstruction"):
        cut = copied(net)
        losses = losses_of(cut, 8)
        scores = measure_importance(cut, losses, by)  # type: ignore[arg-type]
        kept = choose(scores, cut.config, cut.config, Cut(channels=0.5, multiple_of=1))
        refit_(cut, kept, [partial(run, cut, tokens)], reduce=lambda sums: sums)
        cut_(cut, kept)
        errors[by] = float((run(cut, tokens) - expected).norm() / expected.norm())
    assert errors["reconstruction"] < 0.05 < errors["taylor"]


def copied(net: Transformer) -> Transformer:
    """The same once more."""
    other = Transformer(net.config).double().eval()
    other.load_state_dict(net.state_dict())
    return other
