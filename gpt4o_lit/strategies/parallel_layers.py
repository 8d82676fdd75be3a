"""Layers that each hold a part of a network's, and what is sent between their processes.

Between the layers each process has the hidden states of a run of tokens (sequence parallelism,
arXiv:2205.05198), so that norms, sums and dropout too are work shared. Each process's loss is a
part of the whole, and what is sent is differentiated as such: the gradient of a weight that all
processes have is the sum of theirs.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed

from gpt4o_lit.model.attention import Attention
from gpt4o_lit.model.linear import Embedding, Linear
from gpt4o_lit.model.position import AlibiBias
from gpt4o_lit.model.stack import Stack
from gpt4o_lit.model.transformer import Transformer
from gpt4o_lit.strategies.split import Split, own_parameter, splits_of

# B batch, T tokens, L tokens of one process, D dim

# As they are called since PyTorch 2.13, and were before.
_ALL: Any = vars(distributed)
all_gather = _ALL.get("all_gather_single") or _ALL["all_gather_into_tensor"]
reduce_scatter = _ALL.get("reduce_scatter_single") or _ALL["reduce_scatter_tensor"]


@dataclass(eq=False)
class Ranks:
    """The processes that share a network, and how many tokens their rows have just now."""

    group: Any
    rank: int
    size: int
    length: int = 0

    def for_a_stack(self) -> "Ranks":
        """The same, with a length of their own."""
        return Ranks(self.group, self.rank, self.size)

    def begin(self, x_BTD: Tensor) -> Tensor:
        """The tokens of this process, (B, L, D); the last of all are filled up with zeros."""
        self.length = x_BTD.shape[1]
        return _filled(x_BTD, self.size).chunk(self.size, 1)[self.rank]

    def gathered(self, x_BLD: Tensor) -> Tensor:
        """The tokens of all: (B, T, D)."""
        gathered_BTD: Tensor = _Gather.apply(x_BLD, self, self.length)
        return gathered_BTD

    def scattered(self, x_BTD: Tensor) -> Tensor:
        """The sum over processes, of which each gets its tokens: (B, L, D)."""
        scattered_BLD: Tensor = _Scatter.apply(x_BTD, self)
        return scattered_BLD

    def total(self, x: Tensor) -> Tensor:
        """The sum over processes, for each of them."""
        total: Tensor = _Total.apply(x, self)
        return total


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BLD: Tensor, ranks: Ranks, length: int) -> Tensor:
        ctx.ranks = ranks
        return _gather(x_BLD, ranks, length)

    @staticmethod
    def backward(ctx: Any, slope_BTD: Tensor) -> tuple[Tensor, None, None]:
        return _scatter(slope_BTD, ctx.ranks), None, None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BTD: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks, ctx.length = ranks, x_BTD.shape[1]
        return _scatter(x_BTD, ranks)

    @staticmethod
    def backward(ctx: Any, slope_BLD: Tensor) -> tuple[Tensor, None]:
        return _gather(slope_BLD, ctx.ranks, ctx.length), None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return _sum(x, ranks)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return _sum(slope, ctx.ranks), None


def _filled(x_BTD: Tensor, size: int) -> Tensor:
    missing = -x_BTD.shape[1] % size
    return F.pad(x_BTD, (0, 0, 0, missing)) if missing else x_BTD


def _gather(x_BLD: Tensor, ranks: Ranks, length: int) -> Tensor:
    by_rank = x_BLD.new_empty(ranks.size, *x_BLD.shape)
    all_gather(by_rank.flatten(0, 1), x_BLD.contiguous(), group=ranks.group)
    return by_rank.movedim(0, 1).flatten(1, 2)[:, :length]


def _scatter(x_BTD: Tensor, ranks: Ranks) -> Tensor:
    by_rank = _filled(x_BTD, ranks.size).unflatten(1, (ranks.size, -1)).movedim(1, 0).contiguous()
    own_BLD = torch.empty_like(by_rank[0])
    reduce_scatter(own_BLD, by_rank.flatten(0, 1), group=ranks.group)
    return own_BLD


def _sum(x: Tensor, ranks: Ranks) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total, group=ranks.group)
    return total


class ColumnLinear(Linear):
    """Reads the tokens of all processes and has a part of the outputs."""

    def __init__(self, whole: Linear, split: Split, ranks: Ranks) -> None:
        super().__init__(whole.in_features, whole.out_features // ranks.size, device="meta")
        self.ranks = ranks
        self.weight = own_parameter(whole.weight, split, ranks.rank, ranks.size)
        bias: Any = whole.bias
        if bias is not None:
            bias = own_parameter(bias, split, ranks.rank, ranks.size)
        self.bias = bias

    def forward(self, x_BLD: Tensor) -> Tensor:
        return F.linear(self.ranks.gathered(x_BLD), self.weight, self.bias)


class MemoryLinear(ColumnLinear):
    """The same of an encoder's output, which every process has whole."""

    def forward(self, memory_BSD: Tensor) -> Tensor:
        return F.linear(memory_BSD, self.weight, self.bias)


class RowLinear(Linear):
    """Reads a part of the inputs; each process gets its tokens of the sum."""

    def __init__(self, whole: Linear, ranks: Ranks) -> None:
        super().__init__(whole.in_features // ranks.size, whole.out_features, device="meta")
        self.ranks = ranks
        self.weight = own_parameter(whole.weight, Split(1), ranks.rank, ranks.size)
        self.bias = whole.bias

    def forward(self, x_BTF: Tensor) -> Tensor:
        y_BLD = self.ranks.scattered(F.linear(x_BTF, self.weight))
        return y_BLD if self.bias is None else y_BLD + self.bias


class PartialEmbedding(Embedding):
    """Has the vectors of a part of the pieces."""

    def __init__(self, weight: Any, ranks: Ranks) -> None:
        super().__init__(len(weight), weight.shape[1], device="meta")
        self.weight, self.ranks = weight, ranks

    def forward(self, numbers: Tensor) -> Tensor:
        rows = numbers - self.ranks.rank * len(self.weight)
        others = (rows < 0) | (rows >= len(self.weight))
        vectors = F.embedding(rows.masked_fill(others, 0), self.weight)
        return self.ranks.total(vectors.masked_fill(others[..., None], 0.0))


def share_(network: Transformer, ranks: Ranks) -> None:
    """Leave this process its part of the network, which every process has built alike."""
    stacks = {name: ranks.for_a_stack() for name in ("encoder", "decoder")}
    for name, split in splits_of(network).items():
        path, _, kind = name.rpartition(".")
        layer: Any = network.get_submodule(path)
        if not isinstance(layer, Linear):
            setattr(layer, kind, own_parameter(getattr(layer, kind), split, ranks.rank, ranks.size))
        elif kind == "weight":
            holder = network.get_submodule(path.rpartition(".")[0])
            own = _own_layer(path, layer, split, stacks[path.partition(".")[0]])
            setattr(holder, path.rpartition(".")[2], own)
    network.tokens = PartialEmbedding(network.tokens.weight, ranks)
    if network.config.ties_head:
        network.head.weight = network.tokens.weight
    if network.config.num_classes is None:
        network.head.register_forward_pre_hook(_refuse_logits)
    for name, shared in stacks.items():
        stack: Stack | None = getattr(network, name)
        if stack is not None:
            _share_tokens(stack, shared)


def _refuse_logits(*_: Any) -> None:
    raise ValueError(
        "the logits of all pieces are in parts under TensorParallel; ask whole_network for a "
        "network that has them, or take --config with/fsdp2"
    )


def _own_layer(path: str, whole: Linear, split: Split, ranks: Ranks) -> Linear:
    if split.dim == 1:
        return RowLinear(whole, ranks)
    reads_memory = path.endswith(".cross_attention.kv")
    return (MemoryLinear if reads_memory else ColumnLinear)(whole, split, ranks)


def _share_tokens(stack: Stack, ranks: Ranks) -> None:
    """Deal out heads, and tokens from behind the embeddings to behind the last norm."""
    for part in stack.modules():
        if isinstance(part, Attention):
            part.sizes = [heads // ranks.size for heads in part.sizes]
            part.num_heads, part.num_kv_heads, _ = part.sizes
    if isinstance(stack.bias, AlibiBias):
        stack.bias.bits = stack.bias.bits.chunk(ranks.size)[ranks.rank].clone()
    stack.embedding_dropout.register_forward_hook(lambda _, __, x_BTD: ranks.begin(x_BTD))
    stack.register_forward_hook(lambda _, __, x_BLD: ranks.gathered(x_BLD))
