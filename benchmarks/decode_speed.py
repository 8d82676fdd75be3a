"""Tokens/s of writing at equal shapes: ours, Hugging Face, litgpt and llama.cpp, in alternation.

    python benchmarks/decode_speed.py --precision bf16
    python benchmarks/decode_speed.py --precision fp32 --batch_size 8

A decoder of Llama's parts with 124M parameters and random weights reads a prompt of 16 tokens and
writes 64 greedily; a round is the whole of that, prompt included, for each contender in turn. Ours
is `generate` with compiled steps; what compiling takes is told, and no part of a round. Weights are
read once per step, so tokens/s times their bytes is compared with the memory's own speed. litgpt
and llama.cpp (`pip install llama-cpp-python`) are measured where they are installed; the latter
reads our GGUF export in the same precision.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from training_speed import SHAPES, config_of

from gpt4o_lit.generation import SamplingConfig, decode
from gpt4o_lit.interop.gguf import FILE, write_gguf
from gpt4o_lit.interop.llama_cpp import LlamaCpp
from gpt4o_lit.interop.run import OpenedRun
from gpt4o_lit.model import Transformer
from gpt4o_lit.tokenizer import ByteTokenizer

PROMPT, NEW = 16, 64
SHAPE = SHAPES["124m"]
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
REST = 0.5  # seconds: threads of the one before spin for a while when they have nothing to do
Write = Callable[[], object]


@dataclass(frozen=True)
class Numbers:
    """A tokenizer of ids; none of them ends a text."""

    vocab_size: int = SHAPE.vocab_size
    pad_id: int = 0
    eos_id: int = -1


def ours(net: Transformer, ids: torch.Tensor) -> Write:
    """Our decoder with compiled steps."""
    config = SamplingConfig(max_new_tokens=NEW, temperature=0)
    tokenizer: Any = Numbers()
    return lambda: list(decode(net, tokenizer, ids.tolist(), config, compiled=True))


def hugging_face(dtype: torch.dtype, ids: torch.Tensor) -> Write:
    """Hugging Face's Llama and its generate."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=SHAPE.vocab_size, hidden_size=SHAPE.dim, tie_word_embeddings=True,
        intermediate_size=SHAPE.dim * 8 // 3, num_hidden_layers=SHAPE.num_layers,
        num_attention_heads=SHAPE.num_heads, max_position_embeddings=SHAPE.seq_len,
        eos_token_id=None, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    model = model.to(dtype).eval()
    mask = torch.ones_like(ids)
    return lambda: model.generate(ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False)


def litgpt(dtype: torch.dtype, ids: torch.Tensor) -> Write:
    """litgpt's GPT and its generate."""
    from litgpt import GPT, Config
    from litgpt.generate.base import generate

    model = GPT(
        Config(
            block_size=SHAPE.seq_len, padded_vocab_size=SHAPE.vocab_size,
            n_layer=SHAPE.num_layers, n_head=SHAPE.num_heads, n_embd=SHAPE.dim,
            rotary_percentage=1.0, parallel_residual=False, bias=False, norm_class_name="RMSNorm",
            mlp_class_name="LLaMAMLP", intermediate_size=SHAPE.dim * 8 // 3,
        )
    )  # fmt: skip
    model.lm_head.weight = model.transformer.wte.weight
    model = model.to(dtype).eval()
    model.set_kv_cache(batch_size=1, dtype=dtype)
    return lambda: generate(model, ids[0], PROMPT + NEW, temperature=0.0, eos_id=None)


def llama_cpp(net: Transformer, dtype: torch.dtype, ids: torch.Tensor) -> Write:
    """llama.cpp on our export."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_gguf(OpenedRun(net, ByteTokenizer(), folder, folder, False, False), folder, dtype)
        model = LlamaCpp(folder / FILE, SHAPE.seq_len, torch.get_num_threads())
    return lambda: model.greedy(ids[0].tolist(), NEW)


def memory_speed() -> float:
    """Bytes per second that all cores read, the median of ten times."""
    block = torch.ones(256 << 20)  # a gibibyte: no cache holds it
    times = []
    for _ in range(10):
        start = time.perf_counter()
        block.sum()
        times.append(time.perf_counter() - start)
    return block.nbytes / statistics.median(times)


def seconds(write: Write) -> float:
    """How long one text takes."""
    start = time.perf_counter()
    write()
    return time.perf_counter() - start


@torch.inference_mode()
def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16")
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    dtype = PRECISIONS[args.precision]
    ids = torch.randint(1, SHAPE.vocab_size, (args.batch_size, PROMPT))
    net = Transformer(config_of(SHAPE, llama=True)).to(dtype).eval()
    contenders = {"ours": ours(net, ids), "Hugging Face Llama": hugging_face(dtype, ids)}
    if importlib.util.find_spec("litgpt") and args.batch_size == 1:  # it writes one text at a time
        contenders["litgpt"] = litgpt(dtype, ids)
    if importlib.util.find_spec("llama_cpp") and args.batch_size == 1:
        contenders["llama.cpp"] = llama_cpp(net, dtype, ids)
    print(f"compiling took {seconds(contenders['ours']):.1f} s", flush=True)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(args.rounds):
        for name, write in contenders.items():
            time.sleep(REST)
            times[name].append(seconds(write))
    median = {name: statistics.median(each) for name, each in times.items()}
    size = sum(weight.numel() for weight in net.parameters()) * dtype.itemsize
    peak = memory_speed()
    print(
        f"{args.precision}, batch {args.batch_size}, {PROMPT} + {NEW} tokens, {size / 1e6:.0f} MB"
    )
    for name, taken in median.items():
        speed = args.batch_size * NEW / taken
        streamed = size * NEW / taken
        print(
            f"{name:<20} {speed:7.1f} tokens/s  {taken / median['ours']:5.2f}x our time  "
            f"{streamed / 1e9:5.1f} GB/s, {streamed / peak:4.0%} of memory's {peak / 1e9:.1f}"
        )


if __name__ == "__main__":
    main()
