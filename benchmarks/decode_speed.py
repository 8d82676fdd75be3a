"""Tokens/s of writing at equal shapes: ours, Hugging Face, litgpt and llama.cpp, in alternation.

    python benchmarks/decode_speed.py --precision bf16
    python benchmarks/decode_speed.py --precision fp32 --batch_size 8

A decoder of Llama's parts with 124M parameters and random weights reads a prompt of 16 tokens and
writes 64 greedily; a round is the whole of that, prompt included, for each contender in turn. Ours
is `generate` with compiled steps; what compiling takes is told, and no part of a round. litgpt and
llama.cpp (`pip install llama-cpp-python`) are measured where they are installed; the latter reads
our GGUF export in the same precision.

Weights are read once per step, so tokens/s times their bytes is compared with the speed of the
memory. That differs by half with what others do on the machine, and from one region of the memory
to another, so it is that of reading the very same weights before and after each of our texts.
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

from gpt4o_lit.evaluation.efficiency import reading_speed
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


def ours(net: Transformer, ids: torch.Tensor, moments: list[float]) -> Write:
    """Our decoder with compiled steps, and the moment at which each token was there."""
    config = SamplingConfig(max_new_tokens=NEW, temperature=0)
    tokenizer: Any = Numbers()

    def write() -> None:
        texts = decode(net, tokenizer, ids.tolist(), config, compiled=True)
        moments[:] = [time.perf_counter() for _ in texts]

    return write


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


def seconds(write: Write) -> float:
    """How long one call takes."""
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
    moments: list[float] = []
    contenders = {"ours": ours(net, ids, moments), "Hugging Face Llama": hugging_face(dtype, ids)}
    if importlib.util.find_spec("litgpt") and args.batch_size == 1:  # it writes one text at a time
        contenders["litgpt"] = litgpt(dtype, ids)
    if importlib.util.find_spec("llama_cpp") and args.batch_size == 1:
        contenders["llama.cpp"] = llama_cpp(net, dtype, ids)
    print(f"compiling took {seconds(contenders['ours']):.1f} s", flush=True)
    weights = list(net.parameters())
    size = sum(weight.nbytes for weight in weights)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    whole, steps = [], []  # shares of the memory's speed: with the prompt, and behind it
    for _ in range(args.rounds):
        for name, write in contenders.items():
            time.sleep(REST)
            if name != "ours":
                times[name].append(seconds(write))
                continue
            before = reading_speed(weights)
            times[name].append(seconds(write))
            ideal = 2 * size / (before + reading_speed(weights))
            whole.append(ideal * NEW / times[name][-1])
            steps.append(ideal * (NEW - 1) / (moments[-1] - moments[0]))
    median = {name: statistics.median(each) for name, each in times.items()}
    print(
        f"{args.precision}, batch {args.batch_size}, {PROMPT} + {NEW} tokens, {size / 1e6:.0f} MB"
    )
    for name, taken in median.items():
        speed = args.batch_size * NEW / taken
        print(
            f"{name:<20} {speed:7.1f} tokens/s  {taken / median['ours']:5.2f}x our time  "
            f"{size * NEW / taken / 1e9:5.1f} GB/s"
        )
    for name, shares in (("prompt and text", whole), ("steps behind the prompt", steps)):
        rounds = ", ".join(f"{share:.0%}" for share in sorted(shares))
        print(f"ours, {name}: {statistics.median(shares):.0%} of memory's speed ({rounds})")


if __name__ == "__main__":
    main()
