"""Peaks: known GPUs by their plain names, this machine by measuring, which must change nothing."""

import pytest
import torch

from gpt4o_lit.evaluation.efficiency import measured_peak, tabled_peak


def test_measuring_the_peak_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    assert measured_peak(torch.device("cpu"), torch.float32, size=64) > 0
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("some other card", None),
    ],
)
def test_a_plain_name_finds_its_peak(name: str, peak: float | None) -> None:
    assert tabled_peak(name, torch.bfloat16) == peak
    assert tabled_peak(name, torch.float16) == peak
    assert tabled_peak(name, torch.float32) == (None if peak is None else peak / 2)
    assert tabled_peak(name, torch.float64) is None
