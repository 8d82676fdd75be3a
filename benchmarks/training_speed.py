"""Training tokens/s at equal shapes: ours, plain PyTorch, Hugging Face and litgpt in alternation.

    python benchmarks/training_speed.py --size 10m --precision bf16
    python benchmarks/training_speed.py --size 124m --precision bf16 --allocator all --steps 7
    python benchmarks/training_speed.py --size t5-small --precision bf16

Prints the median tokens/s of each, and its time relative to ours. A step is forward, backward,
AdamW (fused), and zeroing the gradients on one fixed batch. Each contender has a process of its
own, and they take their steps in turn. `gpt4o-lit fit` lets glibc keep freed memory; no peer does:
`--allocator ours` measures each as it ships, `--allocator all` gives that setting to everybody.
`--compile` compiles every contender but ours, in place. litgpt is measured where it is installed.
`int8` is bfloat16 with `with/int8_training` for ours; where torchao is installed, peers are
measured in bfloat16 and with its int8 mixed-precision training, heads left out as in ours.
"""

import argparse
import contextlib
import importlib.util
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.nn.functional as F
from plain_gpt import PlainGPT
from torch import Tensor, nn

from gpt4o_lit.compression import Targets, use_int8_products_
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
from gpt4o_lit.strategies.allocator import keep_freed_memory


@dataclass(frozen=True)
class Shape:
    """What all contenders have in common."""

    num_layers: int
    dim: int
    num_heads: int
    vocab_size: int
    seq_len: int
    batch_size: int
    source_len: int = 0
    """Tokens of an encoder's input; 0 where there is no encoder."""

    @property
    def tokens(self) -> int:
        """Tokens that a step reads, of sources and of targets."""
        return self.batch_size * (self.seq_len + self.source_len)


SHAPES = {
    "10m": Shape(6, 384, 6, 256, 256, 16),
    "124m": Shape(12, 768, 12, 50304, 512, 2),
    "t5-small": Shape(6, 512, 8, 32128, 128, 4, source_len=512),
}
WITH_TORCHAO = ", torchao's int8"
Loss = Callable[..., Tensor]


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
    model.lm_head.weight = model.transformer.wte.weight  # as in all others
    return model, lambda tokens, targets: chunked_cross_entropy(model(tokens), targets)


def ours_t5(shape: Shape) -> tuple[nn.Module, Loss]:
    """Our encoder-decoder with T5's parts, without dropout."""
    transformer = Transformer(t5_config(shape))
    head = transformer.head

    def loss(source: Tensor, tokens: Tensor, targets: Tensor) -> Tensor:
        hidden = transformer.hidden(tokens, source_BS=source)
        features = head.features(hidden).flatten(0, 1)
        return linear_cross_entropy(features, head.weight, targets.flatten()) / targets.numel()

    return transformer, loss


def t5_config(shape: Shape) -> TransformerConfig:
    """The shape in our words."""
    stack = StackConfig(
        num_layers=shape.num_layers,
        dim=shape.dim,
        attention=AttentionConfig(num_heads=shape.num_heads, scale=1.0),
        feed_forward=FeedForwardConfig(activation="relu", ffn_dim=4 * shape.dim),
        norm=NormConfig(kind="rms", eps=1e-6),
        position=PositionConfig(kind="relative"),
    )
    return TransformerConfig(
        vocab_size=shape.vocab_size,
        max_seq_len=max(shape.source_len, shape.seq_len),
        head_scale=shape.dim**-0.5,
        encoder=stack,
        decoder=stack,
    )


def hugging_face_t5(shape: Shape) -> tuple[nn.Module, Loss]:
    """Hugging Face's T5 without dropout."""
    import transformers

    config = transformers.T5Config(
        vocab_size=shape.vocab_size, d_model=shape.dim, num_layers=shape.num_layers,
        num_heads=shape.num_heads, d_kv=shape.dim // shape.num_heads, d_ff=4 * shape.dim,
        dropout_rate=0.0, use_cache=False,
    )  # fmt: skip
    model = transformers.T5ForConditionalGeneration(config)

    def loss(source: Tensor, tokens: Tensor, targets: Tensor) -> Tensor:
        logits = model(input_ids=source, decoder_input_ids=tokens).logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return model, loss


def contenders(shape: Shape) -> dict[str, Callable[[], tuple[nn.Module, Loss]]]:
    """Ours first."""
    if shape.source_len:
        return {
            "ours (T5 parts)": partial(ours_t5, shape),
            "Hugging Face T5": partial(hugging_face_t5, shape),
        }
    found = {
        "ours (GPT-2 parts)": partial(ours, shape, "gpt2"),
        "ours (Llama parts)": partial(ours, shape, "llama"),
        "plain PyTorch": partial(plain, shape),
        "Hugging Face GPT-2": partial(hugging_face, shape, "gpt2"),
        "Hugging Face Llama": partial(hugging_face, shape, "llama"),
    }
    if importlib.util.find_spec("litgpt"):
        found["litgpt"] = partial(litgpt, shape)
    return found


def step_of(model: nn.Module, loss: Loss, shape: Shape, precision: str) -> Callable[[], None]:
    """One training step on a fixed batch."""
    if precision == "int8" and isinstance(model, Transformer):
        use_int8_products_(model, Targets())
    elif precision == "torchao":
        multiply_int8_by_torchao(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    tokens = torch.randint(0, shape.vocab_size, (shape.batch_size, shape.seq_len + 1))
    batch = [tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()]
    if shape.source_len:
        batch.insert(0, torch.randint(0, shape.vocab_size, (shape.batch_size, shape.source_len)))

    def step() -> None:
        low = torch.autocast("cpu", torch.bfloat16)
        with contextlib.nullcontext() if precision == "fp32" else low:
            value = loss(*batch)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def multiply_int8_by_torchao(model: nn.Module) -> None:
    """All matrices but the head's."""
    from torchao.prototype.quantized_training import Int8MixedPrecisionTrainingConfig
    from torchao.quantization import quantize_

    quantize_(
        model,
        Int8MixedPrecisionTrainingConfig(grad_weight=False),
        lambda part, name: isinstance(part, nn.Linear) and not name.endswith("head"),
    )


def work(name: str, args: argparse.Namespace, pipe: Connection) -> None:
    """One contender's process: takes a step when told to and answers with its seconds."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.allocator == "all" or name.startswith("ours"):
        keep_freed_memory()
    shape = SHAPES[args.size]
    peer, _, torchao = name.partition(WITH_TORCHAO)
    model, loss = contenders(shape)[peer]()
    if args.compile and not name.startswith("ours"):
        model.compile()
    step = step_of(model, loss, shape, "torchao" if torchao else args.precision)
    while pipe.recv():
        start = time.perf_counter()
        step()
        pipe.send(time.perf_counter() - start)


def measure(names: list[str], args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each contender's steps, in turn; the first two are not counted."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    workers: list[Any] = []
    for name in names:
        pipes[name], theirs = context.Pipe()
        workers.append(context.Process(target=work, args=(name, args, theirs), daemon=True))
        workers[-1].start()
        theirs.close()
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(args.steps + 2):
        for name, pipe in pipes.items():
            pipe.send(True)
            seconds = pipe.recv()
            if turn >= 2:
                times[name].append(seconds)
    for pipe, worker in zip(pipes.values(), workers, strict=True):
        pipe.send(False)
        worker.join(60)
    return times


def main() -> None:
    """Measure all contenders in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SHAPES, default="10m")
    parser.add_argument("--precision", choices=("fp32", "bf16", "int8"), default="fp32")
    parser.add_argument("--allocator", choices=("ours", "all"), default="ours")
    parser.add_argument("--compile", action="store_true", help="compile the peers")
    parser.add_argument("--steps", type=int, default=9, help="counted steps of each contender")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="*", help="these contenders alone")
    args = parser.parse_args()
    shape = SHAPES[args.size]
    names = list(contenders(shape))
    if args.precision == "int8" and importlib.util.find_spec("torchao"):
        names += [name + WITH_TORCHAO for name in names if not name.startswith("ours")]
    names = [name for name in names if not args.only or any(word in name for word in args.only)]
    dtype = torch.float32 if args.precision == "fp32" else torch.bfloat16
    peak = measured_peak(torch.device("cpu"), dtype)
    times = measure(names, args)
    reference = statistics.median(times[names[0]])
    print(
        f"{args.size} {args.precision}, allocator: {args.allocator}, "
        f"{'peers compiled, ' if args.compile else ''}{args.threads} threads, "
        f"GEMM peak {peak / 1e9:.0f} GFLOP/s"
    )
    for name, seconds in times.items():
        median = statistics.median(seconds)
        line = f"{name:<36} {shape.tokens / median:8.0f} tok/s   x{median / reference:.2f} time"
        if not shape.source_len:
            config = config_of(shape, "Llama" in name)
            share = shape.tokens / median * flops_per_token(config, shape.seq_len) / peak
            line += f"   {share:5.1%} of peak"
        print(line)


if __name__ == "__main__":
    main()
