"""What benchmarks share that compare steps of training at one of our sizes."""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
import yaml
from torch import Tensor

from gpt4o_lit.configs import find
from gpt4o_lit.model import TransformerConfig

WINDOW = 512  # tokens, where a network reads as many


def arguments(purpose: str) -> argparse.Namespace:
    """Size, tokens of a step, rounds."""
    parser = argparse.ArgumentParser(description=purpose)
    parser.add_argument("--size", default="gpt2")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def config_of(size: str) -> TransformerConfig:
    """A packaged one."""
    values = yaml.safe_load(find(f"model/{size}").read_text(encoding="utf-8"))
    return TransformerConfig.from_dict(values)


def windows(config: TransformerConfig, tokens: int) -> tuple[Tensor, Tensor]:
    """As many tokens in windows, and those behind each of them."""
    length = min(WINDOW, config.max_seq_len)
    batch = torch.randint(0, config.vocab_size or 0, (tokens // length, length + 1))
    return batch[:, :-1], batch[:, 1:]


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(steps: Mapping[str, Callable[[], object]], tokens: int, rounds: int) -> None:
    """Take the steps in turn, and print their times and those over the first's."""
    times: dict[str, list[float]] = {kind: [] for kind in steps}
    for round in range(rounds + 2):  # the first two warm up
        for kind, step in steps.items():
            took = seconds(step)
            if round >= 2:
                times[kind].append(took)
    plain = next(iter(times.values()))
    for kind, own in times.items():
        ratio = statistics.median(a / b for a, b in zip(own, plain, strict=True))
        print(f"step of {tokens} tokens, {kind:28} {statistics.median(own):6.3f} s  x{ratio:.3f}")
