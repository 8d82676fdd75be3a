"""How fast a network trains, reads and writes here, and what memory it takes."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from gpt4o_lit.compression import round_
from gpt4o_lit.evaluation.deploy import peak_memory
from gpt4o_lit.evaluation.efficiency import measured_bandwidth, peak_flops, reading_speed
from gpt4o_lit.generation.step import Step
from gpt4o_lit.model import KVCache, Transformer, TransformerConfig
from gpt4o_lit.model.count import training_flops
from gpt4o_lit.model.quantized import weight_bytes, weight_tensors
from gpt4o_lit.model.weight_format import WeightFormat
from gpt4o_lit.objectives import linear_cross_entropy

# B batch, T tokens, S source tokens

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
KINDS = ("training", "prefill", "decode")
TURNS = 5


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to measure, in a process of its own."""

    config: dict[str, Any]
    """Of the network; its weights are random, for they make no difference."""
    formats: dict[str, dict[str, Any]]
    """How the weights of layers are stored in whole numbers, by the layers' names."""
    kind: str
    """training: forward, backward and AdamW; prefill: read a prompt; decode: write behind it."""
    precision: str
    batch_size: int
    length: int
    """Tokens of a row, or of the prompt."""
    new_tokens: int
    """Tokens that decode writes."""
    compiled: bool
    seconds: float
    """How long to measure, at least."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was found."""

    kind: str
    precision: str
    batch_size: int
    tokens_per_second: float
    milliseconds: float
    """Of a training step, of the first token (prefill), or of a token (decode); the median."""
    peak_memory_bytes: int
    """Of the process, on the device where it is a GPU."""
    flops_share: float | None
    """Of the peak of the precision; for training and prefill."""
    bandwidth_share: float | None
    """Weights read for a token over what the memory gives; for decode. On a CPU that is the speed
    at which nothing but reading these very weights goes, measured in turn with the steps."""


def measure(case: Case) -> Measured:
    """Measure in a fresh process.

    Raises:
        RuntimeError: it failed, for want of memory perhaps; the message holds its last line.
    """
    done = subprocess.run(
        [sys.executable, "-m", "gpt4o_lit.evaluation.bench"],
        input=json.dumps(asdict(case)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"it was killed ({done.returncode})"])[-1]
        raise RuntimeError(
            f"{case.kind}, {case.precision}, batch {case.batch_size} could not be measured: {last}"
        )
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def measure_here(case: Case) -> Measured:
    """Measure in this process."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = PRECISIONS[case.precision]
    config = TransformerConfig.from_dict(case.config)
    torch.manual_seed(0)
    with device:
        net = Transformer(config)
    round_(net, {name: WeightFormat(**values) for name, values in case.formats.items()})
    work = {"training": _training, "prefill": _prefill, "decode": _decode}[case.kind]
    step, tokens = work(net, case, device, dtype)
    step()  # it compiles and warms up
    times: list[float] = []
    speeds: list[float] = []
    for _ in range(TURNS):
        times += _times(step, device, case.seconds / TURNS)
        if case.kind == "decode" and device.type == "cpu":
            speeds.append(reading_speed(weight_tensors(net)))
    median = statistics.median(times)
    memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_memory()
    flops = bandwidth = None
    if case.kind == "decode":
        speed = statistics.median(speeds) if speeds else measured_bandwidth(device)
        bandwidth = weight_bytes(net) / median / speed
    else:
        flops = case.batch_size * _flops(config, case) / median / peak_flops(device, dtype)
    return Measured(
        kind=case.kind,
        precision=case.precision,
        batch_size=case.batch_size,
        tokens_per_second=tokens / median,
        milliseconds=1e3 * median,
        peak_memory_bytes=memory,
        flops_share=flops,
        bandwidth_share=bandwidth,
    )


Work = tuple[Callable[[], object], int]


def _training(net: Transformer, case: Case, device: torch.device, dtype: torch.dtype) -> Work:
    if case.compiled:
        for stack in (net.encoder, net.decoder):
            if stack is not None:
                stack.compile()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    inputs, head = _inputs(net, case, device), net.head
    targets = inputs["tokens_BT"].flatten()

    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            features_BTD = head.features(net.hidden(**inputs))
            loss = linear_cross_entropy(
                features_BTD.flatten(0, 1), head.matrix(), targets, bias=head.bias
            )
        (loss / len(targets)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, sum(ids.numel() for ids in inputs.values())


def _prefill(net: Transformer, case: Case, device: torch.device, dtype: torch.dtype) -> Work:
    net.eval().to(dtype)
    inputs = _inputs(net, case, device)
    if net.encoder is not None and net.decoder is not None:
        inputs["tokens_BT"] = inputs["tokens_BT"][:, :1]  # what an answer starts with

    reads = Step(net, net.config.vocab_size or 0, compiled=case.compiled)

    @torch.inference_mode()
    def step() -> None:
        reads.scores(reads.read(**inputs)[:, -1])

    return step, case.batch_size * case.length


def _decode(net: Transformer, case: Case, device: torch.device, dtype: torch.dtype) -> Work:
    net.eval().to(dtype)
    inputs = _inputs(net, case, device)
    if net.encoder is not None:
        inputs["tokens_BT"] = inputs["tokens_BT"][:, :1]
    room = inputs["tokens_BT"].shape[1] + case.new_tokens
    with torch.inference_mode():
        cache = KVCache(net.config, case.batch_size, room, device, dtype)
        net.hidden(**inputs, cache=cache)
    start, write = cache.used, Step(net, net.config.vocab_size or 0, compiled=case.compiled)
    token_B1 = inputs["tokens_BT"][:, :1]

    @torch.inference_mode()
    def step() -> None:
        if cache.used == room:
            cache.rewind(start)
        write(token_B1, cache).argmax(-1)

    return step, case.batch_size


def _inputs(net: Transformer, case: Case, device: torch.device) -> dict[str, Any]:
    def draw(length: int) -> Tensor:
        shape = (case.batch_size, length)
        return torch.randint(net.config.vocab_size or 0, shape, device=device)

    if net.encoder is not None and net.decoder is not None:
        return {"source_BS": draw(case.length), "tokens_BT": draw(max(1, case.length // 4))}
    return {"tokens_BT": draw(case.length)}


def _flops(config: TransformerConfig, case: Case) -> float:
    """Of one row: forward and backward, or a forward that asks for one token's scores."""
    both = config.encoder is not None and config.decoder is not None
    source = case.length if both else 0
    target = max(1, case.length // 4) if both else case.length
    if case.kind == "training":
        return training_flops(config, target=target, asked=target, source=source)
    target = 1 if both else case.length
    return training_flops(config, target=target, asked=1, source=source) / 3


def _times(step: Callable[[], object], device: torch.device, seconds: float) -> list[float]:
    """Seconds of each of some steps, one at least."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    print(json.dumps(asdict(measure_here(Case(**json.load(sys.stdin))))))
