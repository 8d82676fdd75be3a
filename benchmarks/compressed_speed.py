"""Tokens/s of whole numbers for weights at 124M parameters: ours, torchao, other engines.

    python benchmarks/compressed_speed.py --bits 8
    python benchmarks/compressed_speed.py --bits 4

A Llama-style decoder with random weights (`model/llama_124m`) reads a prompt and writes behind it,
batch 1. Our own fp32 eager steps are what all are compared with; each contender has its turn in
each round, and medians count. torchao, llama-cpp-python and openvino are measured where they are
installed: torchao on our network, its steps eager and compiled; the engines as `--engine` uses
them, and llama.cpp once more by bare calls of its own library.
"""

import argparse
import ctypes
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml
from decode_speed import REST, seconds
from torch import Tensor, nn

from gpt4o_lit import configs
from gpt4o_lit.compression import Formats, round_
from gpt4o_lit.generation.step import Step
from gpt4o_lit.interop.engines import FILES, MADE_OF, open_engine
from gpt4o_lit.interop.run import OpenedRun
from gpt4o_lit.model import KVCache, Transformer, TransformerConfig
from gpt4o_lit.model.linear import Linear
from gpt4o_lit.model.quantized import weight_bytes
from gpt4o_lit.model.weight_format import WeightFormat
from gpt4o_lit.tokenizer import ByteTokenizer

ROOM = 64  # tokens that fit behind a prompt
FORMATS = {8: WeightFormat(rounds_inputs=True), 4: WeightFormat(bits=4, group_size=32)}


class Contender(Protocol):
    """Reads a prompt, then writes."""

    def read(self, ids: list[int]) -> Tensor: ...

    def write(self, token: int) -> Tensor: ...


class Ours:
    """A network and its steps."""

    def __init__(self, network: Transformer, compiled: bool) -> None:
        self.network, self.size = network, network.config.vocab_size or 0
        self.step = Step(network, self.size, compiled=compiled)

    def read(self, ids: list[int]) -> Tensor:
        """Scores of what follows."""
        weight, config = self.network.head.weight, self.network.config
        self.cache = KVCache(config, 1, len(ids) + ROOM, weight.device, weight.dtype)
        hidden_BTD = self.step.read(torch.tensor([ids]), self.cache)
        return self.network.head(hidden_BTD[:, -1])[0]

    def write(self, token: int) -> Tensor:
        """Scores behind one more."""
        return self.step(torch.tensor([[token]]), self.cache)[0, -1]


class BareLlamaCpp:
    """llama.cpp by the calls of its C library alone."""

    def __init__(self, path: Path, context: int) -> None:
        import llama_cpp

        self.library: Any = llama_cpp
        threads = torch.get_num_threads()
        self.model = llama_cpp.Llama(
            str(path), n_ctx=context, n_batch=context, n_gpu_layers=0, n_threads=threads,
            n_threads_batch=threads, verbose=False,
        )  # fmt: skip
        self.context = self.model._ctx.ctx

    def read(self, ids: list[int]) -> Tensor:
        """Scores of what follows."""
        self.library.llama_memory_clear(self.library.llama_get_memory(self.context), True)
        return self._next(ids)

    def write(self, token: int) -> Tensor:
        """Scores behind one more."""
        return self._next([token])

    def _next(self, ids: list[int]) -> Tensor:
        array = (ctypes.c_int32 * len(ids))(*ids)
        self.library.llama_decode(self.context, self.library.llama_batch_get_one(array, len(ids)))
        row = self.library.llama_get_logits_ith(self.context, -1)
        return torch.frombuffer(
            ctypes.cast(row, ctypes.POINTER(ctypes.c_float * self.model.n_vocab())).contents,
            dtype=torch.float32,
        )


def by_torchao(network: Transformer, config: Any, compiled: bool) -> Ours:
    """Our network with torchao's weights, the head's too, in bfloat16."""
    from torchao.quantization import quantize_

    network = deepcopy(network).bfloat16()
    head = nn.Linear(*reversed(network.head.weight.shape), bias=False, dtype=torch.bfloat16)
    head.weight = nn.Parameter(network.head.weight.detach().clone())
    network.head = head
    for part in network.modules():
        if isinstance(part, Linear):  # whose loops over float weights are not for others' tensors
            part.__class__ = nn.Linear
    quantize_(network, config)
    return Ours(network, compiled)


def torchao_configs(bits: int) -> dict[str, Any]:
    """What torchao offers for so many bits on a CPU."""
    from torchao.prototype.quantization import int4
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig

    if bits == 4:
        return {
            "int4 weight-only": int4.PrototypeInt4WeightOnlyConfig(group_size=32),
        }
    return {
        "int8 dynamic": Int8DynamicActivationInt8WeightConfig(),
        "int8 weight-only": Int8WeightOnlyConfig(),
    }


def contenders(network: Transformer, bits: int, folder: Path) -> Iterator[tuple[str, Contender]]:
    """Each with its name; the first is what all are compared with."""
    yield "ours, fp32, eager", Ours(network, compiled=False)
    rounded = deepcopy(network)
    round_(rounded, Formats(format=FORMATS[bits]).of(rounded))
    print(f"bytes of weights: {weight_bytes(rounded) / weight_bytes(network):.3f} of fp32")
    half = deepcopy(rounded).bfloat16()
    for compiled in (False, True):
        how = "compiled" if compiled else "eager"
        yield f"ours, int{bits}, {how}", Ours(rounded, compiled)
        yield f"ours, int{bits}, bfloat16, {how}", Ours(half, compiled)
    if importlib.util.find_spec("torchao"):
        for label, config in torchao_configs(bits).items():
            for compiled in (False, True):
                name = f"torchao {label}, {'compiled' if compiled else 'eager'}"
                yield name, by_torchao(network, config, compiled)
    blocked = deepcopy(network)
    round_(blocked, Formats(format=replace(FORMATS[bits], group_size=32)).of(blocked))
    for name in FILES:
        if importlib.util.find_spec(name.replace("llamacpp", "llama_cpp")):
            checkpoint = folder / MADE_OF
            checkpoint.touch()
            run = OpenedRun(blocked, ByteTokenizer(), checkpoint, folder, False, False)
            engine = open_engine(name, run, folder / name)
            yield f"--engine {name}", engine
    if importlib.util.find_spec("llama_cpp"):
        path = folder / "llamacpp" / FILES["llamacpp"]
        yield "llama.cpp alone", BareLlamaCpp(path, network.config.max_seq_len)


@torch.inference_mode()
def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bits", type=int, choices=FORMATS, default=8)
    parser.add_argument("--network", default="model/llama_124m", help="a packaged size")
    parser.add_argument("--length", type=int, default=256, help="tokens of the prompt")
    parser.add_argument("--new_tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if not 0 < args.new_tokens <= ROOM:
        parser.error(f"--new_tokens must be 1 to {ROOM}")
    values = yaml.safe_load(configs.find(args.network).read_text(encoding="utf-8"))
    torch.manual_seed(0)
    network = Transformer(TransformerConfig.from_dict(values)).eval()
    ids = torch.randint(network.config.vocab_size or 0, (args.length,)).tolist()
    times: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        found: dict[str, Contender] = {}
        for name, contender in contenders(network, args.bits, Path(folder)):
            try:
                contender.read(ids)
                contender.write(ids[0])
            except (RuntimeError, NotImplementedError) as error:
                if name.startswith("ours"):
                    raise
                print(f"{name}: {str(error).splitlines()[0]}", flush=True)
                continue
            found[name] = contender
            times[name] = {"read": [], "write": []}
            print(f"{name} is ready", flush=True)
        for _ in range(args.rounds):
            for name, contender in found.items():
                time.sleep(REST)
                times[name]["read"].append(seconds(lambda who=contender: who.read(ids)))
                taken = seconds(
                    lambda who=contender: [who.write(id) for id in ids[: args.new_tokens]]
                )
                times[name]["write"].append(taken)
    medians = {
        name: {kind: statistics.median(each) for kind, each in kinds.items()}
        for name, kinds in times.items()
    }
    first = next(iter(medians.values()))
    print(f"{'':<36} {'prefill':>14} {'':>7} {'decode':>14}")
    counts = {"read": args.length, "write": args.new_tokens}
    for name, taken in medians.items():
        told = (
            f"{count / taken[kind]:>10,.1f} t/s {first[kind] / taken[kind]:>6.2f}x"
            for kind, count in counts.items()
        )
        print(f"{name:<36} {' '.join(told)}")


if __name__ == "__main__":
    main()
