"""A training step played through without numbers, to see what memory it takes.

Network, loss and optimizer are the real ones, on tensors that have a shape and no data
(FakeTensorMode), so that whatever is kept for the backward is counted as it is.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gpt4o_lit.evaluation.heap import STEPS, Trace, extent
from gpt4o_lit.model import StackConfig, Transformer, TransformerConfig
from gpt4o_lit.model.block import Block
from gpt4o_lit.model.dropout import Dropout
from gpt4o_lit.objectives import linear_cross_entropy
from gpt4o_lit.objectives.chunks import CHUNK_BYTES

# B rows, T target tokens, S source tokens

aten = torch.ops.aten


class Recipe(Protocol):
    """What builds an optimizer."""

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of the module's trainable parameters."""


@dataclass(frozen=True, kw_only=True)
class Micro:
    """What a device reads at once, and how it computes."""

    rows: int
    """Rows of a micro-batch."""
    target: int
    """Tokens of a row that the decoder reads, or the encoder where there is no decoder."""
    asked: float
    """Of those, the ones with a target, on average."""
    source: int = 0
    """Tokens of a row that the encoder of an encoder-decoder reads."""
    documents: bool = False
    """A row may hold padding or several documents, so that attention has a mask."""
    weights: torch.dtype = torch.float32
    """In what weights are stored."""
    products: torch.dtype = torch.float32
    """In what matrices are multiplied; where it is not `weights`, autocast casts them."""
    on_cpu: bool = False
    """With the kernels that train on a CPU, else with those of a GPU."""


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """Bytes of a training step on one device that holds the whole network."""

    weights: int
    buffers: int
    """What checkpoints have beside them, such as weights that are whole numbers (QLoRA)."""
    trained: int
    """Numbers that learn."""
    gradients: int
    optimizer: int
    """Its state."""
    kept: int
    """What forward and loss leave for the backward."""
    moments: tuple[tuple[int, int], ...]
    """Over forward and backward: memory beside weights, gradients and state; and gradients."""
    updates: int
    """The most that the optimizer works with beside weights, gradients and its state."""
    heap: int | None
    """On a CPU: how far its heap reaches after a few steps."""

    @property
    def gaps(self) -> float:
        """How far a CPU's heap reaches over the most that is in use."""
        assert self.heap is not None
        working = max(working + gradients for working, gradients in self.moments)
        working = max(working, self.updates + self.gradients)
        return self.heap / (self.weights + self.buffers + self.optimizer + working)


Amend = Callable[[Transformer], None]
"""What is done to a network before it is trained, such as to freeze it beside adapters."""


def rehearse(
    config: TransformerConfig, micro: Micro, recipe: Recipe, amend: Amend | None = None
) -> Rehearsal:
    """Play one step through; takes some tens of milliseconds a block."""
    ledger = _Ledger(asked=round(micro.rows * micro.asked))
    kernels: Any = contextlib.nullcontext() if micro.on_cpu else _GPUKernels()
    with FakeTensorMode(), _default_dtype(micro.weights), ledger, kernels:
        network = Transformer(config if micro.on_cpu else _with_sdpa(config)).train()
        if amend is not None:
            amend(network)
        if not micro.on_cpu:
            _use_gpu_kernels_(network)
        optimizer = recipe.build(network)
        ledger.begin(network)
        ledger.trace.end_part()
        loss = _loss(network, micro)
        ledger.trace.end_part()
        kept, forward = ledger.working, len(ledger.moments)
        loss.backward()
        del loss
        ledger.trace.end_part()
        moments, before = ledger.moments.copy(), ledger.live
        ledger.moments.clear()
        optimizer.step()
        ledger.trace.end_part()
        state = ledger.live - before
    return Rehearsal(
        weights=ledger.weights,
        buffers=ledger.buffers,
        trained=ledger.trained,
        gradients=ledger.gradients,
        optimizer=state,
        kept=kept,
        moments=(
            # Lightning sets the gradients of the step before to None only behind the forward.
            *((working, ledger.gradients) for working, _ in moments[:forward]),
            *moments[forward:],
        ),
        updates=max(working for working, _ in ledger.moments) - state,
        heap=extent(ledger.trace.steps(STEPS)) if micro.on_cpu else None,
    )


def _loss(network: Transformer, micro: Micro) -> Tensor:
    """As tasks that predict tokens have it."""

    def zeros(length: int) -> Tensor:
        return torch.zeros(micro.rows, length, dtype=torch.int64)

    tokens_BT, head = zeros(micro.target), network.head
    source_BS = zeros(micro.source) if micro.source else None
    mixed = micro.products != micro.weights
    with torch.autocast("cpu", micro.products, enabled=mixed, cache_enabled=False):
        hidden_BTD = network.hidden(
            tokens_BT,
            source_BS=source_BS,
            documents_BT=tokens_BT if micro.documents else None,
            source_documents_BS=source_BS,
        )
        return linear_cross_entropy(
            head.features(hidden_BTD).flatten(0, 1),
            head.matrix(),
            tokens_BT.flatten(),
            bias=head.bias,
            softcap=head.softcap,
            chunk_size=None if micro.on_cpu else _gpu_chunk(network.config.num_outputs),
        )


def _gpu_chunk(num_outputs: int) -> int:
    return max(32, CHUNK_BYTES["cuda"] // (4 * num_outputs))


class _Ledger(TorchDispatchMode):
    """Counts the bytes that live, and answers what only numbers could tell.

    Args:
        asked: Positions of the batch that have a target.
    """

    def __init__(self, asked: int) -> None:
        super().__init__()
        self.asked = asked
        self.live = self.weights = self.trained = self.buffers = self.gradients = 0
        self.moments: list[tuple[int, int]] = []
        self.trace = Trace()
        self._known: dict[int, Any] = {}

    def begin(self, network: nn.Module) -> None:
        """What there is now are weights; what they get from here on are gradients."""
        self.weights = sum(weight.nbytes for weight in network.parameters())
        saved = network.state_dict()
        self.buffers = sum(each.nbytes for name, each in network.named_buffers() if name in saved)
        self.moments.clear()
        for weight in network.parameters():
            if weight.requires_grad:
                self.trained += weight.numel()
                weight.register_post_accumulate_grad_hook(self._got_gradient)

    @property
    def working(self) -> int:
        """Bytes beside weights, buffers and gradients."""
        return self.live - self.weights - self.buffers - self.gradients

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten._local_scalar_dense.default:
            return False if args[0].dtype == torch.bool else 1
        if func is aten.nonzero.default:
            return self.nonzero(args[0])
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._enter(leaf.untyped_storage())
        self.moments.append((self.working, self.gradients))
        return out

    def nonzero(self, x: Tensor) -> Tensor:
        """As many places as are asked."""
        return x.new_zeros((self.asked, x.ndim), dtype=torch.int64)

    def _enter(self, storage: Any) -> None:
        key = id(storage)
        if key not in self._known:
            size = storage.nbytes()
            self.live += size
            number = self.trace.take(size)
            self._known[key] = weakref.ref(storage, lambda _: self._leave(key, size, number))

    def _leave(self, key: int, size: int, number: int) -> None:
        del self._known[key]
        self.live -= size
        self.trace.give(number)

    def _got_gradient(self, weight: Tensor) -> None:
        assert weight.grad is not None
        self.gradients += weight.grad.nbytes


class _GPUKernels(TorchFunctionMode):
    """Calls what a GPU would run, whose kernels keep other things than those of a CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _fused_attention(*args, **kwargs)
        if func is F.rms_norm:
            return aten._fused_rms_norm(*args, **kwargs)[0]
        return func(*args, **kwargs)


def _fused_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float,
    enable_gqa: bool,
) -> Tensor:
    """Flash attention, or where there is a mask the memory-efficient kernel."""
    if torch.is_autocast_enabled("cpu"):
        q, k, v = (x.to(torch.get_autocast_dtype("cpu")) for x in (q, k, v))
    if attn_mask is None:
        return aten._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, scale=scale)[
            0
        ]
    group = q.shape[1] // k.shape[1]
    if enable_gqa:
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    bias = attn_mask.to(q.dtype).expand(*q.shape[:3], k.shape[2])
    return aten._scaled_dot_product_efficient_attention(
        q, k, v, bias, True, dropout_p, is_causal, scale=scale
    )[0]


class _GPUDropout(nn.Module):
    """PyTorch's own, which keeps a byte for each coin."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return torch.native_dropout(x, self.rate, True)[0] if self.rate else x


def _on_gpu(forward: Callable[..., Tensor], *args: Any) -> Tensor:
    with _GPUKernels():
        return forward(*args)


def _use_gpu_kernels_(network: Transformer) -> None:
    """Dropout and, for a backward runs blocks again outside of all modes, the kernels of blocks."""
    for module in list(network.modules()):
        if isinstance(module, Block):
            module.forward = partial(_on_gpu, module.forward)  # type: ignore[method-assign]
        for name, child in module.named_children():
            if isinstance(child, Dropout):
                setattr(module, name, _GPUDropout(child.rate))


def _with_sdpa(config: TransformerConfig) -> TransformerConfig:
    """Without the kernels that only CPUs have."""

    def changed(stack: StackConfig | None) -> StackConfig | None:
        if stack is None or stack.attention.kernel not in ("auto", "flex"):
            return stack
        return replace(stack, attention=replace(stack.attention, kernel="sdpa"))

    return replace(config, encoder=changed(config.encoder), decoder=changed(config.decoder))


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
