"""The plan of a run: published speeds, the laws of sharding, and what fits."""

import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch

from gpt4o_lit.evaluation.devices import GPUS, Device, find_device
from gpt4o_lit.evaluation.plan import (
    Job,
    Planner,
    checkpointed,
    what_would_fit,
)
from gpt4o_lit.evaluation.rehearsal import Micro
from gpt4o_lit.evaluation.sharding import STRATEGIES, block_parameters, sliced
from gpt4o_lit.model import TransformerConfig, count_parameters
from gpt4o_lit.optim import AdamW, Muon
from gpt4o_lit.strategies import DeepSpeed

BF16 = torch.bfloat16
MPT = {
    "125m": (12, 768, 12), "350m": (24, 1024, 16), "760m": (24, 1536, 12), "1b": (24, 2048, 16),
    "3b": (32, 2560, 20), "7b": (32, 4096, 32), "13b": (40, 5120, 40), "30b": (48, 7168, 56),
    "70b": (80, 8192, 64),
}  # fmt: skip
LLAMA = {"8B": (32, 4096, 32, 14336), "70B": (80, 8192, 64, 28672)}
# Device, network, devices, length, rows, checkpointing, tokens/s of a device; FSDP in bf16.
FOUNDRY = [  # github.com/mosaicml/llm-foundry, scripts/train/benchmarking/README.md at c90b9b3
    ("a100-80", "125m", 8, 2048, 40, False, 142830),
    ("a100-80", "125m", 8, 512, 128, False, 165681),
    ("a100-80", "350m", 8, 2048, 32, False, 58782), ("a100-80", "760m", 8, 2048, 24, False, 32434),
    ("a100-80", "1b", 8, 2048, 14, False, 20513), ("a100-80", "1b", 8, 8192, 3, False, 13814),
    ("a100-80", "3b", 8, 2048, 10, False, 10811), ("a100-80", "7b", 8, 2048, 6, False, 4641),
    ("a100-80", "7b", 8, 32768, 2, True, 1672), ("a100-80", "13b", 8, 2048, 2, False, 2262),
    ("a100-80", "13b", 8, 8192, 5, True, 1795), ("a100-80", "30b", 8, 2048, 3, True, 916),
    ("a100-80", "70b", 64, 2048, 8, True, 410),
    ("h100", "760m", 8, 2048, 24, False, 63147), ("h100", "1b", 8, 2048, 14, False, 45455),
    ("h100", "1b", 8, 512, 56, False, 52275), ("h100", "1b", 512, 2048, 12, False, 39837),
    ("h100", "3b", 16, 2048, 10, False, 24142), ("h100", "7b", 8, 2048, 6, False, 10643),
    ("h100", "7b", 8, 8192, 8, True, 6935), ("h100", "7b", 8, 32768, 2, True, 3318),
    ("h100", "13b", 8, 2048, 2, False, 4792), ("h100", "13b", 8, 4096, 10, True, 4717),
    ("h100", "30b", 8, 2048, 3, True, 2002), ("h100", "70b", 64, 2048, 8, True, 1039),
    ("h100", "70b", 512, 2048, 8, True, 1007),
]  # fmt: skip
TITAN = [  # github.com/pytorch/torchtitan, docs/performance.md and benchmarks/llama3_h100_202412_*
    ("a100-80", "8B", 64, 8192, 1, True, 2904), ("a100-80", "70B", 64, 8192, 1, True, 331),
    ("h100-500w", "8B", 8, 8192, 2, False, 5762), ("h100-500w", "8B", 8, 8192, 2, False, 6667),
]  # fmt: skip
# As that table says: HBM2e at 2.4 TB/s, 500 W, and a peak between SXM and NVL, here that of NVL.
H100_500W = replace(GPUS["h100"], name="h100-500w", bf16=835e12, bandwidth=2.4e12)


def published(name: str, length: int, checkpointing: bool) -> TransformerConfig:
    if name in MPT:
        layers, dim, heads = MPT[name]
        stack: dict[str, Any] = {
            "attention": {"num_heads": heads},
            "position": {"kind": "learned"},
            "norm": {"kind": "layer"},
            "feed_forward": {"activation": "gelu"},
        }
        whole: dict[str, Any] = {"vocab_size": 50368}
    else:
        layers, dim, heads, ffn_dim = LLAMA[name]
        stack = {"attention": {"num_heads": heads, "num_kv_heads": 8}}
        stack["feed_forward"] = {"ffn_dim": ffn_dim}
        whole = {"vocab_size": 128256, "tie_embeddings": False}
    stack |= {"num_layers": layers, "dim": dim}
    config = TransformerConfig.from_dict({"max_seq_len": length, "decoder": stack, **whole})
    return checkpointed(config) if checkpointing else config


@pytest.mark.parametrize("row", FOUNDRY + TITAN, ids=lambda row: "-".join(map(str, row[:5])))
def test_a_published_speed_is_met_within_a_quarter(row: tuple[Any, ...]) -> None:
    device, name, devices, length, rows, checkpointing, speed = row
    micro = Micro(rows=rows, target=length, asked=length, weights=BF16, products=BF16)
    job = Job(
        config=published(name, length, checkpointing),
        micro=micro,
        recipe=AdamW(),
        device={**GPUS, "h100-500w": H100_500W}[device],
        devices=devices,
        rate="bf16",
    )
    seconds = Planner(job).step_seconds(STRATEGIES["fsdp2"])
    assert rows * length / seconds == pytest.approx(speed, rel=0.25)


SMALL = TransformerConfig.from_dict(
    {
        "vocab_size": 1000,
        "max_seq_len": 128,
        "decoder": {"num_layers": 2, "dim": 128, "attention": {"num_heads": 4}},
    }
)
PARAMETERS = count_parameters(SMALL)["total"]


def job(**changes: Any) -> Job:
    micro = Micro(rows=2, target=128, asked=128, products=BF16)
    plain = Job(config=SMALL, micro=micro, recipe=AdamW(), device=GPUS["h100"], devices=8)
    return replace(plain, **changes)


@pytest.fixture(scope="module")
def planner() -> Planner:
    return Planner(job())


def test_zero_takes_16_bytes_a_parameter_and_shares_out_what_its_stage_says(
    planner: Planner,
) -> None:
    """The formulas of arXiv:1910.02054: (2 + 2 + 12) bytes, of which stages 1, 2, 3 split 12, 14,
    16 over the devices."""
    shared = {"zero1": 12, "zero2": 14, "zero3": 16}
    for name, split in shared.items():
        used = planner.memory(STRATEGIES[name], 2)
        state = sum(used[kind] for kind in ("weights", "masters", "optimizer"))
        state += PARAMETERS * 2 * (1 if name == "zero1" else 1 / 8)
        assert state == pytest.approx(PARAMETERS * (16 - split + split / 8), rel=0.01)


def test_parts_take_their_share_and_activations_are_left_alone(planner: Planner) -> None:
    whole, parts = (planner.memory(STRATEGIES[name], 2) for name in ("ddp", "fsdp2"))
    assert parts["weights"] == whole["weights"] / 8
    assert parts["optimizer"] == whole["optimizer"] / 8
    assert parts["activations"] == whole["activations"]
    kept = planner.memory(STRATEGIES["fsdp2 zero-2"], 2)["in transit"]
    assert kept >= parts["in transit"]


def test_blocks_and_what_is_outside_are_all_parameters() -> None:
    block, outside = block_parameters(SMALL)
    assert 2 * block + outside == PARAMETERS


def test_an_offloaded_optimizer_takes_nothing_and_costs_time(planner: Planner) -> None:
    here, there = STRATEGIES["zero2"], STRATEGIES["zero2 offload"]
    assert planner.memory(there, 2)["optimizer"] == planner.memory(there, 2)["masters"] == 0
    assert planner.step_seconds(there) > planner.step_seconds(here)


def test_gradients_of_a_window_are_there_all_the_time() -> None:
    once, more = (Planner(job(accumulate=n)).memory(STRATEGIES["ddp"], 2) for n in (1, 2))
    assert sum(more.values()) >= sum(once.values())
    assert more["gradients"] == 4 * PARAMETERS


def test_the_largest_micro_batch_fits_and_one_row_more_does_not() -> None:
    small = replace(GPUS["h100"], memory=100e6)
    planner = Planner(job(device=small))
    strategy = STRATEGIES["fsdp2"]
    largest = planner.outlook(strategy).largest
    assert largest > 2
    assert sum(planner.memory(strategy, largest).values()) <= 100e6
    assert sum(planner.memory(strategy, largest + 1).values()) > 100e6


def test_tensor_parallelism_splits_the_matrices_and_refuses_what_cannot_be_split() -> None:
    block, _ = block_parameters(SMALL)
    part, _ = block_parameters(sliced(SMALL, 4))
    norms = 2 * 128
    assert (part - norms) * 4 == block - norms
    with pytest.raises(ValueError, match=r"decoder.attention.num_heads \(4\) must be a multiple"):
        sliced(SMALL, 3)


def test_muon_is_refused_where_matrices_lie_in_parts() -> None:
    planner = Planner(job(recipe=Muon()))
    with pytest.raises(ValueError, match="Muon needs weights that are whole"):
        planner.outlook(STRATEGIES["fsdp2"])


def test_what_would_fit_says_how_many_devices_and_they_do() -> None:
    planner = Planner(job(config=checkpointed(SMALL), devices=4))
    memory = sum(planner.memory(STRATEGIES["fsdp2"], 1).values()) + 1
    short = job(device=replace(GPUS["h100"], memory=memory), devices=1)
    assert "--devices 4 (fsdp2)" in what_would_fit(short)
    shorter = replace(short, device=replace(GPUS["h100"], memory=1e6))
    assert "a device with more memory" in what_would_fit(shorter)


def test_more_processes_on_the_same_cpus_have_no_more_memory() -> None:
    small = replace(GPUS["h100"], memory=1e6)
    alone = job(config=SMALL, devices=1, micro=replace(job().micro, on_cpu=True), device=small)
    assert replace(alone, devices=4).room == alone.room / 4
    assert "a device with more memory" in what_would_fit(alone)


def test_a_mistyped_device_gets_the_nearest_one() -> None:
    with pytest.raises(ValueError, match=r"device \(h10\) is in no table; did you mean 'h100'"):
        find_device("h10")


def test_peaks_fall_from_narrow_to_wide_types() -> None:
    device: Device
    for device in GPUS.values():
        assert device.fp8 >= device.bf16 > device.fp32


def test_buckets_are_those_of_our_deepspeed() -> None:
    given = inspect.signature(DeepSpeed).parameters["bucket_size"].default
    assert STRATEGIES["zero2"].buckets == 2 * given
