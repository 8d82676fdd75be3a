"""One step of writing: from each row's last tokens to the scores behind them, perhaps compiled."""

from collections.abc import Callable, Sequence
from itertools import chain
from types import FunctionType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from gpt4o_lit.model import KVCache, Transformer
from gpt4o_lit.model.cache import Kept, places_in_slots
from gpt4o_lit.model.linear import HasMatrix, pack_

# B batch, T tokens, S places, K key heads, H head_dim, V vocab

Parts = tuple[list[Kept], list[Kept]]
"""Keys and values of all layers, as far as a step sees them."""
Graph = Callable[..., Sequence[Tensor]]

# Stacks may be compiled for training, whose shapes are few; here nearly every call has its own.
UNCOMPILED = "force_eager"
FEWEST_PLACES = 128
# Each network, batch, number of tokens and of places is compiled for itself; Dynamo's own limit of
# 8 would leave the rest eager without a word.
MOST_COMPILED = 64
# Fewer tokens are read sooner than a graph for them is found in the compiler's cache.
FEWEST_READ = 128


class Step:
    """Scores behind some tokens; compiled, it is made anew when a batch or the places grow.

    Prompts are read by a compiled graph too, one for all lengths, where they have `FEWEST_READ`
    tokens and are equally long: what lies between the products is done in fewer passes.

    On a CPU a compiled step of few rows reads weights at the speed of memory, several times that of
    an eager one; making it takes half a minute, and some seconds in later processes. For three rows
    and more it keeps the weights in memory once more. On a GPU it is recorded as a CUDA graph and
    played again, which spares the launch of each kernel.

    Args:
        num_pieces: Pieces that are scored, the first ones.
        lengths: Numbers of tokens that a compiled step is made for; others are read eagerly.
    """

    def __init__(
        self,
        transformer: Transformer,
        num_pieces: int,
        *,
        compiled: bool,
        lengths: Sequence[int] = (1,),
    ) -> None:
        self.transformer, self.num_pieces, self.lengths = transformer, num_pieces, lengths
        self.compiled = compiled
        self._replays = compiled and transformer.head.weight.device.type == "cuda"
        self._by_rows: dict[int, _CompiledStep] = {}
        self._parts: Parts | None = None
        self._direct: dict[torch.Size, _Direct] = {}

    def __call__(self, tokens_BT: Tensor, cache: KVCache) -> Tensor:
        """Scores (B, T, V) in float32 behind these tokens, which are added to the cache."""
        length = tokens_BT.shape[1]
        if not self.compiled or length not in self.lengths:
            with torch.compiler.set_stance(UNCOMPILED):
                return self.scores(self.transformer.hidden(tokens_BT, cache=cache))
        cache.require_room(length)
        tokens_BT = tokens_BT.contiguous()  # strides are compiled in
        size = places_for(min(cache.used + length, cache.slots), cache.slots)
        parts = cache.parts(size)
        cross = list(chain.from_iterable(cache.cross))
        changing = [tokens_BT, cache.lengths_B, *cross, cache.source_documents_BS]
        if parts is not self._parts:
            self._parts = parts
            self._direct.clear()  # they hold those of before
        if tokens_BT.shape in self._direct:
            logits_BTV = self._direct[tokens_BT.shape](changing)
        else:
            logits_BTV = self._found(tokens_BT, cache, parts, changing)
        cache.advance(length, None)
        return logits_BTV.clone() if self._replays else logits_BTV  # the next step writes over it

    def read(
        self,
        tokens_BT: Tensor,
        cache: KVCache | None = None,
        source_BS: Tensor | None = None,
        **who_sees: Tensor | None,
    ) -> Tensor:
        """Final states (B, T, D) of prompts, whose keys and values are added to the cache.

        Args:
            who_sees: Documents and prefix, as `Transformer.hidden` takes them.
        """
        count = max(tokens_BT.numel(), 0 if source_BS is None else source_BS.numel())
        plain = all(tensor is None for tensor in who_sees.values())
        if not self.compiled or not plain or count < FEWEST_READ:
            with torch.compiler.set_stance(UNCOMPILED):
                return self.transformer.hidden(
                    tokens_BT, source_BS=source_BS, cache=cache, **who_sees
                )
        pack_(self.transformer, count)
        # Not `contiguous`, which leaves a part of a row the whole row's stride; Dynamo looks at it.
        tokens_BT = tokens_BT.clone(memory_format=torch.contiguous_format)
        return _reader(self.transformer)(self.transformer, tokens_BT, source_BS, cache)

    def _found(
        self, tokens_BT: Tensor, cache: KVCache, parts: Parts, changing: list[Tensor | None]
    ) -> Tensor:
        """Scores by the compiled step that Dynamo finds to fit, or makes."""
        rows = tokens_BT.numel()
        if rows not in self._by_rows:
            pack_(self.transformer, rows)
            self._by_rows[rows] = _compiled(self.transformer)
        torch._dynamo.mark_static(tokens_BT)
        keys, values = parts
        if self._replays:
            torch.compiler.cudagraph_mark_step_begin()
            tensors = chain.from_iterable(each.tensors for each in (*keys, *values))
            for kept in (*tensors, *chain.from_iterable(cache.cross)):
                # It is read and written where it is, not copied to where the graph was recorded.
                torch._dynamo.mark_static_address(kept, guard=False)
        compiled = self._by_rows[rows]
        logits_BTV = compiled(
            self.transformer,
            self.num_pieces,
            tokens_BT,
            cache.lengths_B,
            cache.slots,
            keys,
            values,
            cache.cross,
            cache.source_documents_BS,
        )
        direct = compiled.direct(changing, logits_BTV)
        if direct is not None:
            self._direct[tokens_BT.shape] = direct
        return logits_BTV

    def scores(self, hidden: Tensor) -> Tensor:
        """Scores (..., V) of the pieces in float32, from final states (..., D)."""
        return _head(self.transformer, self.num_pieces, hidden)


def _head(transformer: Transformer, num_pieces: int, hidden: Tensor) -> Tensor:
    return transformer.head(hidden)[..., :num_pieces].float()


def _step(transformer: Transformer, num_pieces: int, tokens_BT: Tensor, *parts: Any) -> Tensor:
    cache: Any = _FixedCache(tokens_BT.shape[1], *parts)
    return _head(transformer, num_pieces, transformer.hidden(tokens_BT, cache=cache))


class _Direct(NamedTuple):
    """What Dynamo called for the parts of a cache, to be called again without Dynamo.

    To find that nothing has changed takes Dynamo a tenth of a small network's step.
    """

    graph: Graph
    inputs: list[Any]
    """Its inputs, those that change left out."""
    places: list[tuple[int, int]]
    """Where which of those belongs."""

    def __call__(self, changing: Sequence[Tensor | None]) -> Tensor:
        inputs = self.inputs.copy()
        for place, number in self.places:
            inputs[place] = changing[number]
        return self.graph(*inputs)[0]


class _CompiledStep:
    """`_step`, compiled for a network as it is now, and the graphs that its last call ran."""

    def __init__(self, on_gpu: bool) -> None:
        step = _with_own_code(_step)
        options: dict[str, Any] = {
            "guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe
        }
        if on_gpu:
            options["triton.cudagraphs"] = True
        backend = "inductor" if on_gpu else self._on_cpu
        self._step = torch.compile(step, backend=backend, options=options)
        self._ran: list[tuple[Graph, list[Any], Sequence[Tensor]]] = []

    def __call__(self, *args: Any) -> Tensor:
        self._ran.clear()
        scores: Tensor = self._step(*args)
        return scores

    def direct(self, changing: Sequence[Tensor | None], answer: Tensor) -> _Direct | None:
        """How to run again what gave this answer; None on a GPU, where a graph is recorded."""
        ran = self._ran.copy()
        self._ran.clear()  # it holds the cache
        if len(ran) != 1 or ran[0][2][0] is not answer:
            return None
        graph, inputs, _ = ran[0]
        numbers = {id(tensor): number for number, tensor in enumerate(changing)}
        places = [(i, numbers[id(x)]) for i, x in enumerate(inputs) if id(x) in numbers]
        for place, _ in places:
            inputs[place] = None
        return _Direct(graph, inputs, places)

    def _on_cpu(self, graph: Any, inputs: Any) -> Callable[..., Sequence[Tensor]]:
        # Two hundred small tensors are made in each step, which Python takes 5% of it for.
        run = _inductor(graph, inputs, {"cpp_wrapper": True})

        def noted(*args: Any) -> Sequence[Tensor]:
            outputs: Sequence[Tensor] = run(*args)
            self._ran.append((run, list(args), outputs))
            return outputs

        return noted


def _inductor(graph: Any, inputs: Any, patches: dict[str, Any] | None = None) -> Any:
    from torch._inductor.compile_fx import compile_fx  # takes a second, and may not be needed

    return compile_fx(graph, inputs, config_patches=patches)


def _with_own_code(function: Any) -> FunctionType:
    """The same once more: Dynamo finds by the code what it has compiled, and how often."""
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, MOST_COMPILED)
    return FunctionType(function.__code__.replace(), globals(), function.__name__)


def places_for(length: int, longest: int) -> int:
    """Room for so many tokens, of which there are few sizes: each is compiled anew."""
    size = FEWEST_PLACES
    while size < length:
        size *= 2
    return max(length, min(size, longest))


def _read(
    transformer: Transformer, tokens_BT: Tensor, source_BS: Tensor | None, cache: KVCache | None
) -> Tensor:
    return transformer.hidden(tokens_BT, source_BS=source_BS, cache=cache)


_readers: WeakKeyDictionary[Transformer, Callable[..., Tensor]] = WeakKeyDictionary()


def _reader(transformer: Transformer) -> Callable[..., Tensor]:
    """`_read`, compiled for a network and any lengths."""
    if transformer not in _readers:
        own = _with_own_code(_read)
        _readers[transformer] = torch.compile(own, backend=_inductor, dynamic=True)
    return _readers[transformer]


_steps: WeakKeyDictionary[Transformer, dict[Any, _CompiledStep]] = WeakKeyDictionary()


def _compiled(transformer: Transformer) -> _CompiledStep:
    """`_step`, compiled for a network as it is now, whose parts are not looked at in each step.

    A step of a small network takes a millisecond, and as much to find that nothing about a hundred
    modules has changed. So what has been compiled is found here, once, by all that it depends on.
    """
    parts = tuple(_state(part) for part in transformer.modules() if isinstance(part, HasMatrix))
    known = _steps.setdefault(transformer, {})
    key = (transformer.training, parts)
    if key not in known:
        known[key] = _CompiledStep(on_gpu=transformer.head.weight.device.type == "cuda")
    return known[key]


def _state(part: HasMatrix) -> tuple[Any, ...]:
    """What of a matrix is compiled in."""
    weight = part.weight
    format = getattr(weight, "format", None)
    return type(weight), weight.shape, weight.dtype, weight.device, format, part.packed is None


class _FixedCache:
    """The places of a KVCache as a compiled step sees them: as many at every step, masked."""

    ragged = True

    def __init__(
        self,
        length: int,
        lengths_B: Tensor,
        slots: int,
        keys: list[Kept],
        values: list[Kept],
        cross: list[tuple[Tensor, Tensor]],
        source_documents_BS: Tensor | None,
    ) -> None:
        self.lengths_B, self.slots, self.keys, self.values = lengths_B, slots, keys, values
        self.cross, self.source_documents_BS = cross, source_documents_BS
        self.used = keys[0].numbers.shape[1] - length

    def places(self, length: int) -> Tensor:
        """The places of each row's new tokens: (B, T)."""
        return self.lengths_B[:, None] + torch.arange(length, device=self.lengths_B.device)

    def places_kept(self, length: int) -> Tensor:
        """The place that each slot holds, negative where it holds nothing: (B, S)."""
        slots_S = torch.arange(self.used + length, device=self.lengths_B.device)
        return places_in_slots(self.places(length)[:, -1:], slots_S, self.slots)

    def write(self, layer: int, k_BTKH: Tensor, v_BTKH: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values of the new tokens; gives all places: (B, S, K, H)."""
        keys, values = self.keys[layer], self.values[layer]
        rows_B1 = torch.arange(len(k_BTKH), device=k_BTKH.device)[:, None]
        slots_BT = self.places(k_BTKH.shape[1]) % self.slots
        keys.put(rows_B1, slots_BT, k_BTKH)
        values.put(rows_B1, slots_BT, v_BTKH)
        end = self.used + k_BTKH.shape[1]
        return keys.read(end), values.read(end)

    def require_room(self, length: int) -> None:
        """The KVCache has looked."""

    def advance(self, length: int, documents_BT: Tensor | None) -> None:
        """The KVCache counts."""
