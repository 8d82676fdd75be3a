"""What each way to make a network smaller was worth: runs measured side by side, in turns."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt4o_lit.evaluation import deploy
from gpt4o_lit.evaluation.perplexity import text_quality
from gpt4o_lit.generation import PromptFormat
from gpt4o_lit.generation.step import Step
from gpt4o_lit.interop.compressed import is_compressed
from gpt4o_lit.interop.files import SINGLE
from gpt4o_lit.interop.run import OpenedRun, open_run
from gpt4o_lit.model import KVCache, Transformer, count_parameters
from gpt4o_lit.model.quantized import count_nonzeros, weight_bytes

# B batch, T tokens

MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and how."""

    batch_sizes: tuple[int, ...] = (1, 8)
    """Rows that are read and written at once."""
    length: int = 256
    """Tokens of a prompt; at most half of the context."""
    new_tokens: int = 32
    """Tokens written behind it in each round."""
    rounds: int = 5
    """Each network has its turn in each; medians count."""
    compiled: bool = False
    """Read and write by compiled graphs as well."""
    price_per_hour: float | None = None
    """What the machine costs, in whatever currency."""

    def __post_init__(self) -> None:
        for name in ("length", "new_tokens", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 1")
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise ValueError(f"batch_sizes {self.batch_sizes} must be at least 1 each; set it to 1")
        if self.price_per_hour is not None and self.price_per_hour <= 0:
            raise ValueError(f"price_per_hour ({self.price_per_hour}) must be above 0")


@dataclass(kw_only=True)
class Entry:
    """Figures of one run; None where nothing was measured."""

    run: str
    parameters: int
    nonzeros: int
    """Weights that are not 0."""
    bytes_on_disk: int
    """Of the weights alone."""
    peak_memory_bytes: int | None = None
    """Of a process that does nothing but load the run, read a context and write."""
    first_token_ms: float | None = None
    """To read a prompt and score what follows, at batch 1."""
    prefill: dict[int, float] = field(default_factory=dict)
    """Tokens read per second, by batch size."""
    prefill_compiled: dict[int, float] = field(default_factory=dict)
    """The same by a compiled graph."""
    decode: dict[int, float] = field(default_factory=dict)
    """Tokens written per second by eager steps, by batch size."""
    decode_compiled: dict[int, float] = field(default_factory=dict)
    """The same by compiled steps."""
    bits_per_byte: float | None = None
    """Of the texts."""
    price_per_million: float | None = None
    """Of a million tokens written, at the batch size and by the steps that write most."""


def measure(
    runs: Sequence[Path],
    plan: Plan,
    texts: Sequence[str] = (),
    told: Callable[[str], object] = lambda words: None,
) -> list[Entry]:
    """Measure the runs in this process, in turns, and the memory of each in one of its own.

    Args:
        told: Is told what is about to be measured.
    """
    opened = [open_run(run) for run in runs]
    entries = [_counted(run) for run in opened]
    for entry, run in zip(entries, opened, strict=True):
        told(f"memory of {entry.run}")
        entry.peak_memory_bytes = deploy.measure(run.path).peak_memory_bytes
        if texts and run.transformer.encoder is None:
            told(f"bits per byte of {entry.run}")
            entry.bits_per_byte = _quality(run, texts)
    for batch_size in plan.batch_sizes:
        told(f"speed at batch {batch_size}")
        _speeds(opened, entries, plan, batch_size)
    if plan.price_per_hour is not None:
        for entry in entries:
            best = max([*entry.decode.values(), *entry.decode_compiled.values()], default=None)
            if best is not None:
                entry.price_per_million = plan.price_per_hour / 3600 / best * MILLION
    return entries


def _counted(run: OpenedRun) -> Entry:
    network = run.transformer
    packed = is_compressed(run.path)
    return Entry(
        run=str(run.path),
        parameters=count_parameters(network.config)["total"],
        nonzeros=count_nonzeros(network),
        bytes_on_disk=(run.path / SINGLE).stat().st_size if packed else weight_bytes(network),
    )


def _quality(run: OpenedRun, texts: Sequence[str]) -> float:
    form = PromptFormat(add_bos=run.add_bos, bidirectional=run.bidirectional_prompt)
    return text_quality(run.transformer, run.tokenizer, texts, prompt_format=form).bits_per_byte


@torch.inference_mode()
def _speeds(
    opened: Sequence[OpenedRun], entries: Sequence[Entry], plan: Plan, batch_size: int
) -> None:
    works = [_Work(run.transformer, plan, batch_size) for run in opened]
    for work in works:
        for run in work.measures.values():
            run()
    times: list[dict[str, list[float]]] = [{} for _ in works]
    for _ in range(plan.rounds):
        for work, found in zip(works, times, strict=True):
            for name, run in work.measures.items():
                found.setdefault(name, []).append(run())
    for entry, found in zip(entries, times, strict=True):
        medians = {name: statistics.median(values) for name, values in found.items()}
        if batch_size == 1:
            entry.first_token_ms = 1e3 * medians["prefill"]
        for name, seconds in medians.items():
            count = plan.new_tokens if name.startswith("decode") else works[0].length
            getattr(entry, name)[batch_size] = batch_size * count / seconds


class _Work:
    """A network with a prompt to read and tokens to write behind it."""

    def __init__(self, network: Transformer, plan: Plan, batch_size: int) -> None:
        config, self.network, self.plan = network.config, network, plan
        self.length = max(1, min(plan.length, config.max_seq_len // 2))
        self.new_tokens = min(plan.new_tokens, config.max_seq_len - self.length)
        generator = torch.Generator().manual_seed(0)
        size = config.vocab_size or 0
        self.prompt_BT = torch.randint(size, (batch_size, self.length), generator=generator)
        self.both = network.encoder is not None and network.decoder is not None
        self.measures: dict[str, Callable[[], float]] = {}
        """What gives the seconds of a figure of an Entry; reading comes before writing."""
        for compiled in (False, True) if plan.compiled else (False,):
            step, suffix = Step(network, size, compiled=compiled), "_compiled" * compiled
            self.measures[f"prefill{suffix}"] = partial(self._read, step)
            if network.decoder is not None:
                self.measures[f"decode{suffix}"] = partial(self._write, step)

    def _read(self, step: Step) -> float:
        """Seconds to read the prompt and score what follows."""
        self.cache = self._cache()
        start = time.perf_counter()
        step.scores(step.read(**self._prompt(), cache=self.cache)[:, -1:])
        return time.perf_counter() - start

    def _write(self, step: Step) -> float:
        """Seconds to write behind it, each time from the prompt on."""
        assert self.cache is not None
        self.cache.rewind(1 if self.both else self.length)
        token_B1: Tensor = self.prompt_BT[:, :1]
        start = time.perf_counter()
        for _ in range(self.new_tokens):
            token_B1 = step(token_B1, self.cache)[:, -1].argmax(-1, keepdim=True)
        return time.perf_counter() - start

    def _cache(self) -> KVCache | None:
        if self.network.decoder is None:
            return None
        weight = self.network.head.weight
        room = self.length + self.new_tokens
        return KVCache(self.network.config, len(self.prompt_BT), room, weight.device, weight.dtype)

    def _prompt(self) -> dict[str, Any]:
        if self.both:
            return {"source_BS": self.prompt_BT, "tokens_BT": self.prompt_BT[:, :1]}
        return {"tokens_BT": self.prompt_BT}
