"""Peaks of machines, so that a speed can be told as a share of what is possible."""

import functools
import re
import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor

# Dense peaks in FLOP/s as the vendors' data sheets give them (no sparsity), for bf16.
# The first pattern that the device's name matches counts; plain names are the SXM parts.
GPU_PEAKS_BF16 = (
    (r"b200|gb200", 2250e12),
    (r"h200", 989e12),
    (r"h100.*(pcie)", 756e12),
    (r"h100.*(nvl)", 835e12),
    (r"h100", 989e12),
    (r"a100", 312e12),
    (r"l40s", 362e12),
    (r"l4\b", 121e12),
    (r"rtx.*4090", 165.2e12),
    (r"rtx.*3090", 71e12),
    (r"a10g?\b", 125e12),
    (r"mi300x", 1307e12),
)
_FP32_SHARE = 0.5  # TF32 runs at half the rate of bf16 on NVIDIA's tensor cores


def tabled_peak(device_name: str, dtype: torch.dtype) -> float | None:
    """Peak FLOP/s of a GPU by its name, or None where the table does not tell it."""
    for pattern, peak in GPU_PEAKS_BF16:
        if re.search(pattern, device_name.lower()):
            peaks = {torch.bfloat16: peak, torch.float16: peak, torch.float32: peak * _FP32_SHARE}
            return peaks.get(dtype)
    return None


@functools.cache
def measured_peak(device: torch.device, dtype: torch.dtype, size: int = 1024) -> float:
    """FLOP/s of the best of several square matrix products here; takes under a second."""
    # Ones, not random numbers: measuring must not move the run's random generator.
    a = torch.ones(size, size, device=device, dtype=dtype)
    b = torch.ones(size, size, device=device, dtype=dtype)
    out = torch.mm(a, b)
    best, deadline = float("inf"), time.perf_counter() + 0.6
    while time.perf_counter() < deadline:
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


@functools.cache
def measured_bandwidth(device: torch.device) -> float:
    """Bytes per second that are read of a block no cache holds; the best of several times."""
    block = torch.ones(256 << 20, device=device)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        block.sum()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return block.nbytes / best


def reading_speed(tensors: Sequence[Tensor]) -> float:
    """Bytes per second at which all cores of a CPU read these tensors, the median of five times.

    Memory that is shared differs by half from minute to minute, and from one region to another; so
    what reads tensors is best compared with this, in turns.
    """
    blocks = [tensor.detach().flatten().view(torch.uint8) for tensor in tensors]
    blocks = [block[: len(block) // 8 * 8].view(torch.int64) for block in blocks if len(block) >= 8]
    times = []
    for _ in range(5):
        start = time.perf_counter()
        for block in blocks:
            block.amax()
        times.append(time.perf_counter() - start)
    return sum(block.nbytes for block in blocks) / statistics.median(times)


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """The tabled peak of a known GPU, else what this machine reaches when measured."""
    if device.type == "cuda":
        tabled = tabled_peak(torch.cuda.get_device_name(device), dtype)
        if tabled is not None:
            return tabled
    return measured_peak(device, dtype)
