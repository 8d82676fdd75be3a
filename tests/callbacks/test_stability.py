"""A loss spikes by how it lies among those before it, whatever their unit and their outliers."""

import pytest
import torch

from gpt4o_lit.callbacks import Stability
from gpt4o_lit.callbacks.stability import spike_score

LOSSES = (3 + 0.1 * torch.randn(101, generator=torch.Generator().manual_seed(0))).tolist()


def test_the_score_counts_the_standard_deviations_of_normal_losses() -> None:
    losses = torch.randn(100_001, generator=torch.Generator().manual_seed(0)).double()
    mean, deviation = losses.mean().item(), losses.std().item()
    assert spike_score(mean + 5 * deviation, losses.tolist()) == pytest.approx(5, abs=0.05)


def test_the_score_knows_no_unit() -> None:
    score = spike_score(4.0, LOSSES)
    assert spike_score(2 * 4.0 + 1, [2 * each + 1 for each in LOSSES]) == pytest.approx(score)


def test_spikes_hide_no_spike() -> None:
    spoiled = [1e6] * 20 + LOSSES[20:]
    assert spike_score(4.0, spoiled) > 0.5 * spike_score(4.0, LOSSES) > 4


def test_losses_that_hardly_differ_spike_by_a_share_of_them() -> None:
    assert spike_score(2.002, [2.0] * 30) == pytest.approx(1)


def test_of_few_losses_nothing_is_told() -> None:
    assert spike_score(100.0, LOSSES[:19]) == 0
    assert spike_score(100.0, LOSSES[:20]) > 100


@pytest.mark.parametrize(
    "wrong", [{"spike_threshold": 0.0}, {"spike_window": 19}, {"max_skips": 0}]
)
def test_a_setting_that_guards_nothing_is_refused(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} .* must be"):
        Stability(**wrong)  # type: ignore[arg-type]
