"""What FSDP2 is set to before processes meet."""

import pytest
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment

from gpt4o_lit.strategies import FSDP2


@pytest.mark.parametrize(
    ("device", "cpu_offload", "backend"),
    [
        ("cuda", True, "cpu:gloo,cuda:nccl"),  # gradients lie on the CPU, and are summed there
        ("cuda", False, "nccl"),
        ("cpu", True, "gloo"),
    ],
)
def test_parts_on_the_cpu_are_summed_there(device: str, cpu_offload: bool, backend: str) -> None:
    strategy = FSDP2(cpu_offload=cpu_offload)
    strategy.parallel_devices = [torch.device(device, 0)]
    strategy.cluster_environment = LightningEnvironment()
    assert strategy._get_process_group_backend() == backend


def test_there_is_a_group_at_least() -> None:
    with pytest.raises(ValueError, match=r"replicas \(0\) must be at least 1; leave it out"):
        FSDP2(replicas=0)
