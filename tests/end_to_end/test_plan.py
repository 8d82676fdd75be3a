"""What a fit takes on this CPU is what was planned, within a tenth."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpt4o_lit.evaluation.devices import Device
from gpt4o_lit.evaluation.plan import Planner
from gpt4o_lit.evaluation.sharding import STRATEGIES
from gpt4o_lit.experiments.experiment import read_experiment
from gpt4o_lit.experiments.job import job_of
from tests.end_to_end.conftest import give

# A process's memory from before its network is built, kernels loaded, to the last batch.
PROBE = """
import re
from pathlib import Path

import torch
from lightning import Callback


def resident(kind):
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{kind}:\\s+(\\d+) kB", text)[1]) * 1024


class Probe(Callback):
    def setup(self, trainer, pl_module, stage):
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.randn(64, 64, dtype=dtype, requires_grad=True)
            torch.bmm((x @ x)[None], x[None]).sum().backward()
            torch.optim.AdamW([x], fused=True).step()
        Path("/proc/self/clear_refs").write_text("5")
        self.before = resident("VmRSS")

    def on_train_batch_end(self, *args):
        Path("peak").write_text(str(resident("VmHWM") - self.before))
"""
CPU = Device(
    name="cpu", memory=1e12, bf16=1e12, fp32=1e12, fp8=1e12, bandwidth=1e11, link=1e11, network=1e9
)
STACKS = {
    "decoder": (["decoder"], "CausalLM"),
    "encoder": (["encoder"], "MaskedLM"),
    "encoder_decoder": (["encoder", "decoder"], "SpanCorruption"),
}
SIZES = {"small": (256, 4, 8), "large": (384, 6, 16)}
"""Width, layers, rows."""


def enlarge(config: Path, kind: str, size: str, optimizer: str, precision: str) -> list[str]:
    """The tiny config as one that takes hundreds of megabytes; the flags of its fit."""
    dim, num_layers, rows = SIZES[size]
    give(config, *STACKS[kind])
    values: dict[str, Any] = yaml.safe_load(config.read_text(encoding="utf-8"))
    arguments, data = values["model"]["init_args"], values["data"]["init_args"]
    for stack in STACKS[kind][0]:
        heads = {"num_heads": dim // 64}
        arguments["transformer"][stack] = {
            "num_layers": num_layers, "dim": dim, "attention": heads,
        }  # fmt: skip
    arguments["transformer"] |= {"max_seq_len": 256, "vocab_size": 8000}
    arguments["optimizer"] = {"class_path": f"gpt4o_lit.optim.{optimizer}"}
    data |= {"seq_len": 256, "batch_size": rows}
    data["corpus"]["documents"] = "file"
    values["trainer"] |= {"max_steps": 3, "limit_val_batches": 0, "precision": precision}
    values["samples"] = {"enabled": False}
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    Path("probe.py").write_text(PROBE, encoding="utf-8")
    for name in range(20):
        text = Path("text.txt").read_text(encoding="utf-8")
        Path(f"{name}.txt").write_text(f"{name} {text}", encoding="utf-8")
    return ["--config", str(config), "--data.init_args.corpus.sources", "['*.txt']"]


def measured_and_planned(flags: list[str]) -> tuple[int, float]:
    """Bytes at the peak of a fit."""
    probed = ["--trainer.callbacks+=probe.Probe", "--run_dir", "run"]
    command = [sys.executable, "-m", "gpt4o_lit", "fit", *flags, *probed]
    subprocess.run(command, check=True, capture_output=True, timeout=500)
    job = job_of(read_experiment(flags), CPU)
    planned = sum(Planner(job).memory(STRATEGIES["one"], job.micro.rows).values())
    measured = int(Path("peak").read_text(encoding="utf-8"))
    print(f"{planned / 1e6:.0f} of {measured / 1e6:.0f} MB")
    return measured, planned


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("optimizer", ["AdamW", "Muon"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", STACKS)
def test_a_fit_takes_the_memory_that_was_planned(
    kind: str, size: str, optimizer: str, precision: str, config: Path
) -> None:
    measured, planned = measured_and_planned(enlarge(config, kind, size, optimizer, precision))
    assert planned == pytest.approx(measured, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("quantize", ["null", "{bits: 4, group_size: 32}"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_adapters_take_the_memory_that_was_planned(
    precision: str, quantize: str, config: Path
) -> None:
    flags = enlarge(config, "decoder", "large", "AdamW", precision)
    lora = ["--config", "with/lora", "--trainer.callbacks.quantize", quantize]
    measured, planned = measured_and_planned(flags + lora)
    assert planned == pytest.approx(measured, rel=0.1)
