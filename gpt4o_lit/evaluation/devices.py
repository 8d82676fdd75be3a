"""What devices can do, as their vendors tell it."""

import os
from dataclasses import dataclass
from difflib import get_close_matches

import torch

from gpt4o_lit.evaluation.efficiency import measured_bandwidth, measured_peak, tabled_peak


@dataclass(frozen=True, kw_only=True)
class Device:
    """Dense peaks, without sparsity; a rate that a device lacks is that of the next wider type."""

    name: str
    memory: float
    """Bytes. Vendors count a little less than there is, which leaves room for the driver's own."""
    bf16: float
    """FLOP/s."""
    fp32: float
    """FLOP/s, without TF32, which PyTorch uses only when it is told to."""
    fp8: float
    """FLOP/s."""
    bandwidth: float
    """Bytes/s of its memory."""
    link: float
    """Bytes/s in one direction to the other devices of a machine."""
    network: float
    """Bytes/s in one direction between machines, of all devices of one together."""
    products: float = 0.93
    """Share of the peak that matrix products reach; this and the next as fitted (docs/plan.md)."""
    attention: float = 0.55
    """Share of the peak of bf16 that attention reaches, all scores counted and half masked."""


MACHINE_DEVICES = 8
"""Devices of a machine, which share its network."""
# The same kernels reach less of a peak that has grown faster than memory has.
_LATER = {"products": 0.78, "attention": 0.33}


def _gpu(
    name: str,
    memory: float,
    *,
    fp32: float,
    bandwidth: float,
    link: float,
    network: float = 50,
    fp8: float = 0,
    **shares: float,
) -> Device:
    """In GB, TFLOP/s, and GB/s (`network`: of each device's adapter); bf16 is in `efficiency`."""
    bf16 = tabled_peak(name, torch.bfloat16)
    assert bf16 is not None
    return Device(
        name=name,
        memory=memory * 1e9,
        bf16=bf16,
        fp32=fp32 * 1e12,
        fp8=fp8 * 1e12 or bf16,
        bandwidth=bandwidth * 1e9,
        link=link * 1e9,
        network=MACHINE_DEVICES * network * 1e9,
        **shares,
    )


GPUS = {
    device.name: device
    for device in (
        # NVIDIA A100 datasheet: SXM4, NVLink 3 at 600 GB/s both ways; DGX A100: 200 Gb/s adapters
        _gpu("a100-40", 40, fp32=19.5, bandwidth=1555, link=300, network=25),
        _gpu("a100-80", 80, fp32=19.5, bandwidth=2039, link=300, network=25),
        # NVIDIA H100 datasheet: SXM5, NVLink 4 at 900 GB/s both ways; DGX H100: 400 Gb/s adapters
        _gpu("h100", 80, fp32=67, fp8=1979, bandwidth=3350, link=450, **_LATER),
        # NVIDIA H200 datasheet: SXM
        _gpu("h200", 141, fp32=67, fp8=1979, bandwidth=4800, link=450, **_LATER),
        # NVIDIA Blackwell datasheet: HGX B200, NVLink 5 at 1.8 TB/s both ways
        _gpu("b200", 180, fp32=75, fp8=4500, bandwidth=7700, link=900, **_LATER),
        # NVIDIA L40S datasheet: PCIe 4.0 x16 at 64 GB/s both ways
        _gpu("l40s", 48, fp32=91.6, fp8=733, bandwidth=864, link=32, network=25),
        # NVIDIA Ada GPU architecture whitepaper: RTX 4090 with fp32 sums, PCIe 4.0 x16
        _gpu("rtx4090", 24, fp32=82.6, fp8=330.3, bandwidth=1008, link=32, network=12.5),
        # AMD Instinct MI300X datasheet: 7 Infinity Fabric links at 128 GB/s both ways
        _gpu("mi300x", 192, fp32=163.4, fp8=2614.9, bandwidth=5300, link=448, **_LATER),
    )
}
NAMES = (*GPUS, "cpu")


def find_device(name: str) -> Device:
    """A tabled GPU, or the machine's CPUs as measured now.

    Raises:
        ValueError: no device has this name.
    """
    name = {"a100": "a100-80"}.get(name.lower(), name.lower())
    if name == "cpu":
        return _this_machine()
    if name not in GPUS:
        near = get_close_matches(name, NAMES, 1, cutoff=0.4)
        mend = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(NAMES)}"
        raise ValueError(f"device ({name}) is in no table; {mend}")
    return GPUS[name]


def _this_machine() -> Device:
    cpu = torch.device("cpu")
    bf16, bandwidth = measured_peak(cpu, torch.bfloat16), measured_bandwidth(cpu)
    return Device(
        name="cpu",
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        bf16=bf16,
        fp32=measured_peak(cpu, torch.float32),
        fp8=bf16,
        bandwidth=bandwidth,
        link=bandwidth / 2,  # what one process writes, another reads
        network=1.25e9,
    )
