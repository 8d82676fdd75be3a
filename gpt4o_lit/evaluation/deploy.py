"""What a trained network costs to deploy, measured in a process of its own."""

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from gpt4o_lit.interop.run import open_run
from gpt4o_lit.model import KVCache, Transformer
from gpt4o_lit.model.quantized import formats_of, weight_bytes


@dataclass(frozen=True)
class DeploymentCost:
    """Measured figures of one network on one machine."""

    weight_bytes: int
    """Bytes of the weights in memory; tied weights count once."""
    peak_memory_bytes: int
    """Largest resident memory of a process that does nothing but load and run the network."""
    prefill_tokens_per_second: float
    """Tokens read per second, one row of the whole context."""
    decode_tokens_per_second: float | None
    """Tokens written per second at batch 1; None for what writes none."""
    threads: int
    """Threads that were used."""
    weights: str
    """As what they are stored: float32, or the formats of whole numbers."""


def measure(run: Path) -> DeploymentCost:
    """Load a run in a fresh process and measure it there.

    Raises:
        RuntimeError: the process failed; the message holds its last line.
    """
    done = subprocess.run(
        [sys.executable, "-m", "gpt4o_lit.evaluation.deploy", str(run)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"measuring {run} failed: {last}")
    return DeploymentCost(**json.loads(done.stdout.strip().splitlines()[-1]))


@torch.inference_mode()
def measure_here(transformer: Transformer, num_tokens: int = 64) -> DeploymentCost:
    """Measure in this process; the peak memory is that of all it has done so far."""
    transformer.eval()
    prefill = _prefill_speed(transformer)
    writes = transformer.decoder is not None and transformer.config.num_classes is None
    decode = _decode_speed(transformer, num_tokens) if writes else None
    return DeploymentCost(
        weight_bytes=weight_bytes(transformer),
        peak_memory_bytes=peak_memory(),
        prefill_tokens_per_second=prefill,
        decode_tokens_per_second=decode,
        threads=torch.get_num_threads(),
        weights=_stored_as(transformer),
    )


def _stored_as(transformer: Transformer) -> str:
    formats = sorted({str(format) for format in formats_of(transformer).values()})
    return "; ".join(formats) or str(transformer.head.weight.dtype).removeprefix("torch.")


def peak_memory() -> int:
    """Largest resident memory of this program so far, in bytes.

    Linux hands ru_maxrss of the program that started this one over to it; VmHWM is its own.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii"), re.MULTILINE)
        if found is not None:
            return int(found[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _prefill_speed(transformer: Transformer, repeats: int = 3) -> float:
    length = min(transformer.config.max_seq_len, 512)
    tokens = torch.zeros(1, length, dtype=torch.long)
    run = transformer.hidden if transformer.encoder is None else transformer.encode
    run(tokens)
    best = min(_seconds(lambda: run(tokens)) for _ in range(repeats))
    return length / best


def _decode_speed(transformer: Transformer, num_tokens: int) -> float:
    num_tokens = min(num_tokens, transformer.config.max_seq_len - 1)
    weight = transformer.head.weight
    cache = KVCache(transformer.config, 1, num_tokens + 1, weight.device, weight.dtype)
    token = torch.zeros(1, 1, dtype=torch.long)
    source = None if transformer.encoder is None else torch.zeros(1, 32, dtype=torch.long)
    transformer(token, source_BS=source, cache=cache)

    def decode() -> None:
        for _ in range(num_tokens):
            transformer(token, source_BS=source, cache=cache).argmax(-1)

    return num_tokens / _seconds(decode)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    print(json.dumps(asdict(measure_here(open_run(sys.argv[1]).transformer))))
