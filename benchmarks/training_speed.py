"""Training tokens/s at equal shapes: ours, plain PyTorch, Hugging Face and litgpt in alternation.

    python benchmarks/training_speed.py --size 10m
    python benchmarks/training_speed.py --size 124m --precision bf16 --steps 7

Prints the median tokens/s of each, and its ratio to ours. A step is forward, backward, AdamW
(fused), and zeroing the gradients on one fixed batch. litgpt is measured where it is installed.
"""

import argparse
import contextlib
import importlib.util
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from plain_gpt import PlainGPT
from torch import Tensor, nn

from gpt4o_lit.evaluation.efficiency import measured_peak
from gpt4o_lit.model import (
    AttentionConfig,
    FeedForwardConfig,
    StackConfig,
    Transformer,
    TransformerConfig,
    flops_per_token,
)
from gpt4o_lit.model.config import NormConfig, PositionConfig
from gpt4o_lit.objectives import linear_cross_entropy


@dataclass(frozen=True)
class Shape:
    """What all contenders have in common."""

    num_layers: int
    dim: int
    num_heads: int
    vocab_size: int
    seq_len: int
    batch_size: int


SHAPES = {
    "10m": Shape(6, 384, 6, 256, 256, 16),
    "124m": Shape(12, 768, 12, 50304, 512, 2),
}
Loss = Callable[[Tensor, Tensor], Tensor]


def ours(shape: Shape, kind: str) -> tuple[nn.Module, Loss]:
    """Our decoder: GPT-2's parts or Llama's."""
    llama = kind == "llama"
    transformer = Transformer(config_of(shape, llama))
    head = transformer.head

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        features = head.features(transformer.hidden(tokens)).flatten(0, 1)
        total = linear_cross_entropy(features, head.weight, targets.flatten(), bias=head.bias)
        return total / targets.numel()

    return transformer, loss


def config_of(shape: Shape, llama: bool) -> TransformerConfig:
    """The shape in our words."""
    return TransformerConfig(
        vocab_size=shape.vocab_size,
        max_seq_len=shape.seq_len,
        decoder=StackConfig(
            num_layers=shape.num_layers,
            dim=shape.dim,
            attention=AttentionConfig(num_heads=shape.num_heads),
            feed_forward=FeedForwardConfig(
                activation="swiglu" if llama else "gelu",
                ffn_dim=shape.dim * 8 // 3 if llama else None,
            ),
            norm=NormConfig(kind="rms" if llama else "layer", bias=False),
            position=PositionConfig(kind="rotary" if llama else "learned"),
        ),
    )


def plain(shape: Shape) -> tuple[nn.Module, Loss]:
    """Plain PyTorch in nanoGPT's form."""
    model = PlainGPT(shape.num_layers, shape.dim, shape.num_heads, shape.vocab_size, shape.seq_len)
    return model, model


def hugging_face(shape: Shape, kind: str) -> tuple[nn.Module, Loss]:
    """Hugging Face's GPT-2 or Llama with SDPA."""
    import transformers

    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=shape.vocab_size, n_positions=shape.seq_len, n_embd=shape.dim,
            n_layer=shape.num_layers, n_head=shape.num_heads,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
        )  # fmt: skip
    else:
        config = transformers.LlamaConfig(
            vocab_size=shape.vocab_size, hidden_size=shape.dim, tie_word_embeddings=True,
            intermediate_size=shape.dim * 8 // 3, num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.num_heads, max_position_embeddings=shape.seq_len,
            use_cache=False,
        )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        logits = model(tokens).logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return model, loss


def litgpt(shape: Shape) -> tuple[nn.Module, Loss]:
    """litgpt's GPT."""
    from litgpt import GPT, Config
    from litgpt.utils import chunked_cross_entropy

    config = Config(
        block_size=shape.seq_len,
        vocab_size=shape.vocab_size,
        padded_vocab_size=shape.vocab_size,
        n_layer=shape.num_layers,
        n_head=shape.num_heads,
        n_embd=shape.dim,
        bias=False,
        parallel_residual=False,
        rotary_percentage=1.0,
    )
    model = GPT(config)
    return model, lambda tokens, targets: chunked_cross_entropy(model(tokens), targets)


def step_of(model: nn.Module, loss: Loss, shape: Shape, precision: str) -> Callable[[], None]:
    """One training step on a fixed batch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    tokens = torch.randint(0, shape.vocab_size, (shape.batch_size, shape.seq_len + 1))
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def step() -> None:
        context = (
            torch.autocast("cpu", torch.bfloat16)
            if precision == "bf16"
            else contextlib.nullcontext()
        )
        with context:
            value = loss(inputs, targets)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    """Measure all contenders in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SHAPES, default="10m")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--steps", type=int, default=9, help="counted steps of each contender")
    parser.add_argument("--only", nargs="*", help="these contenders alone")
    args = parser.parse_args()
    torch.manual_seed(0)
    shape = SHAPES[args.size]
    contenders = {
        "ours (GPT-2 parts)": lambda: ours(shape, "gpt2"),
        "ours (Llama parts)": lambda: ours(shape, "llama"),
        "plain PyTorch": lambda: plain(shape),
        "Hugging Face GPT-2": lambda: hugging_face(shape, "gpt2"),
        "Hugging Face Llama": lambda: hugging_face(shape, "llama"),
    }
    if importlib.util.find_spec("litgpt"):
        contenders["litgpt"] = lambda: litgpt(shape)
    steps = {
        name: step_of(*build(), shape, args.precision)
        for name, build in contenders.items()
        if not args.only or any(word in name for word in args.only)
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(args.steps + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn:
                times[name].append(time.perf_counter() - start)
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    peak = measured_peak(torch.device("cpu"), dtype)
    tokens = shape.batch_size * shape.seq_len
    reference = statistics.median(next(iter(times.values())))
    threads = torch.get_num_threads()
    print(f"{args.size} {args.precision}, {threads} threads, GEMM peak {peak / 1e9:.0f} GFLOP/s")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        share = tokens / median * flops_per_token(config_of(shape, "Llama" in name), shape.seq_len)
        print(
            f"{name:<22} {tokens / median:8.0f} tok/s   x{median / reference:.2f} of ours' time   "
            f"{share / peak:5.1%} of peak"
        )


if __name__ == "__main__":
    main()
