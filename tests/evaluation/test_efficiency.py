"""Peaks: known GPUs by their plain names, this machine by measuring, which must change nothing."""

import statistics
import time

import pytest
import torch

from gpt4o_lit.evaluation.efficiency import measured_peak, reading_speed, tabled_peak


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_reading_tells_the_speed_and_changes_nothing(dtype: torch.dtype) -> None:
    large, odd, tiny = torch.ones(1 << 24, dtype=dtype), torch.ones(77, dtype=dtype), torch.ones(())
    told, times = [], []
    for _ in range(3):
        told.append(reading_speed([large, odd, tiny]))
        start = time.perf_counter()
        large.view(torch.int64).amax()
        times.append(time.perf_counter() - start)
    assert bool((large == 1).all() and (odd == 1).all())
    measured = large.nbytes / statistics.median(times)
    assert 0.2 < statistics.median(told) / measured < 5  # other work may be on the machine
