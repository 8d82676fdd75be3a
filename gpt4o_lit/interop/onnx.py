"""Exports a run to ONNX graphs whose cache of keys and values goes in and comes out as tensors."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpt4o_lit.interop.export import Compared, compare, rounded
from gpt4o_lit.interop.onnx_numbers import numbers_in_graph
from gpt4o_lit.interop.run import OpenedRun
from gpt4o_lit.interop.save_tokenizer import save_tokenizer
from gpt4o_lit.model import Transformer
from gpt4o_lit.model.position import FixedTable

# B batch, T new tokens, P tokens in the cache, S source tokens, K key heads, H head_dim, V vocab

GRAPH, ENCODER = "model.onnx", "encoder.onnx"
OPSET = 20
ROUNDED_INPUTS = 0.06
"""Share of the largest logit that 8 bits of what layers read may make, instead of float32."""
Array = np.ndarray[Any, Any]


class WithPast(nn.Module):
    """A decoder: tokens (B, T) and what is kept to logits (B, T, V) and what is to be kept.

    Kept are keys and values (B, P, K, H) of each layer; P may be 0. Behind an encoder the decoder
    also takes the keys and values (B, S, K, H) that `Source` makes for each layer.

    Args:
        last: Give the logits (B, 1, V) of the last token alone.
    """

    def __init__(self, transformer: Transformer, last: bool = False) -> None:
        super().__init__()
        self.transformer, self.last = transformer, last

    def forward(
        self, tokens: Tensor, past: list[Tensor], cross: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """Logits, then keys and values (B, P + T, K, H) of each layer."""
        cache = _TensorCache(past, cross)
        hidden_BTD = self.transformer.hidden(tokens, cache=cache)  # type: ignore[arg-type]
        logits = self.transformer.head(hidden_BTD[:, -1:] if self.last else hidden_BTD)
        return logits, *cache.now


class Source(nn.Module):
    """An encoder: source (B, S) to keys and values (B, S, K, H) for each layer of the decoder."""

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, source: Tensor) -> list[Tensor]:
        """Keys and values, layer by layer."""
        memory_BSD = self.transformer.encode(source)
        decoder: Any = self.transformer.decoder
        pairs = [block.cross_attention.keys_values(memory_BSD, None) for block in decoder.blocks]
        return [each for pair in pairs for each in pair]


class _TensorCache:
    """A KVCache that is made anew at every read; places are counted from the past's length."""

    ragged = True  # single tokens take no path of their own, which would be fixed in the graph
    used = 1
    source_documents_BS = None

    def __init__(self, past: list[Tensor], cross: list[Tensor]) -> None:
        self._past, self.now = past, list(past)
        self.cross = list(zip(cross[::2], cross[1::2], strict=True))

    def places(self, length: int) -> Tensor:
        """Places of the new tokens: (1, T)."""
        before = self._past[0].shape[1]
        return torch.arange(before, before + length, device=self._past[0].device)[None]

    def places_kept(self, length: int) -> Tensor:
        """Places of all tokens: (1, P + T)."""
        return torch.arange(self._past[0].shape[1] + length, device=self._past[0].device)[None]

    def write(self, layer: int, k_BTKH: Tensor, v_BTKH: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens: (B, P + T, K, H)."""
        for place, new in ((2 * layer, k_BTKH), (2 * layer + 1, v_BTKH)):
            self.now[place] = torch.cat([self._past[place], new], dim=1)
        return self.now[2 * layer], self.now[2 * layer + 1]

    def require_room(self, length: int) -> None:
        """Room is what the caller gives."""

    def advance(self, length: int, documents_BT: Tensor | None) -> None:
        """The caller counts."""


def export_onnx(run: OpenedRun, directory: Path) -> Compared:
    """Graphs for ONNX Runtime and the tokenizer's files; opened by ONNX Runtime and compared.

    A decoder's model.onnx has the inputs `tokens`, `past_key_N` and `past_value_N`, and the outputs
    `logits`, `key_N` and `value_N`, N from 0 on. Behind an encoder, encoder.onnx makes
    `cross_key_N` and `cross_value_N` of `source`, which model.onnx takes too. An encoder alone
    makes `logits` of `tokens`. Batch and lengths are free. Whole numbers stay whole: MatMulNBits of
    ONNX Runtime multiplies with them, and rounds its inputs to 8 bits, block by block.

    Raises:
        ValueError: onnx, onnxscript or onnxruntime is not installed; nothing is written.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(f"ONNX needs {error.name}; pip install 'gpt4o-lit[onnx]'") from error
    net = run.transformer
    write_graphs(net, directory)
    longest = net.config.max_seq_len
    save_tokenizer(run.tokenizer, directory, max_seq_len=longest, add_bos=run.add_bos)
    sessions = _Sessions(onnxruntime, net, directory)
    ours = rounded(net, None)
    compared = compare(ours, sessions.logits, f"onnxruntime {onnxruntime.__version__}")
    return compared if ours is net else replace(compared, tolerance=ROUNDED_INPUTS)


def write_graphs(net: Transformer, directory: Path, *, last: bool = False) -> None:
    """Write the graphs and nothing more.

    Args:
        last: A decoder gives the logits of the last token alone, for whoever writes text.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with _plain_tables(net), numbers_in_graph(net):
        if net.decoder is None:
            _write(net, (_tokens(net, 3),), (_free(net, "length"),), ["tokens"], ["logits"],
                   directory / GRAPH)  # fmt: skip
        else:
            _write_decoder(net, directory, last)


def _write_decoder(net: Transformer, directory: Path, last: bool) -> None:
    """The decoder's graph, and behind an encoder that of the source."""
    assert net.config.decoder is not None
    layers, both = net.config.decoder.num_layers, net.encoder is not None
    kept, cross = _empty(net, 3, 5), _empty(net, 3, 4) if both else []
    past, source = _free(net, "past", least=0), _free(net, "source")
    shapes = (_free(net, "length"), [past for _ in kept], [source for _ in cross])
    names = ["tokens", *kept_names("past_", layers)]
    if both:
        names += kept_names("cross_", layers)
        _write(Source(net), (_tokens(net, 4),), (source,), ["source"],
               kept_names("cross_", layers), directory / ENCODER)  # fmt: skip
    _write(WithPast(net, last), (_tokens(net, 7), kept, cross), shapes, names,
           ["logits", *kept_names("", layers)], directory / GRAPH)  # fmt: skip


def _free(net: Transformer, name: str, least: int = 1) -> dict[int, Any]:
    """What a graph leaves free of an input's shape: the batch, and a length of this name."""
    length = torch.export.Dim(name, min=least, max=net.config.max_seq_len)
    return {0: torch.export.Dim("batch", min=1, max=1 << 16), 1: length}


class _Sessions:
    """The written graphs, as ONNX Runtime runs them."""

    def __init__(self, library: Any, net: Transformer, directory: Path) -> None:
        cpu = ["CPUExecutionProvider"]
        self._net, self._encoder = net, None
        self._model = library.InferenceSession(directory / GRAPH, providers=cpu)
        if (directory / ENCODER).exists():
            self._encoder = library.InferenceSession(directory / ENCODER, providers=cpu)

    def logits(self, inputs: dict[str, Tensor]) -> Tensor:
        """Of all tokens, which a decoder reads in three parts: several, one, and the rest."""
        tokens = inputs["tokens_BT"].numpy()
        if self._net.decoder is None:
            return torch.from_numpy(self._model.run(["logits"], {"tokens": tokens})[0])
        layers = len(self._net.decoder.blocks)
        cross: list[Array] = []
        if self._encoder is not None:
            cross = self._encoder.run(None, {"source": inputs["source_BS"].numpy()})
        kept: list[Array] = [each.numpy() for each in _empty(self._net, len(tokens), 0)]
        parts, middle = [], tokens.shape[1] // 2
        for start, end in ((0, middle), (middle, middle + 1), (middle + 1, tokens.shape[1])):
            given = dict(zip(kept_names("past_", layers), kept, strict=True))
            given |= dict(zip(kept_names("cross_", layers)[: len(cross)], cross, strict=True))
            part, *kept = self._model.run(None, {"tokens": tokens[:, start:end], **given})
            parts.append(part)
        return torch.from_numpy(np.concatenate(parts, axis=1))


def _write(
    module: nn.Module,
    inputs: tuple[Any, ...],
    shapes: tuple[Any, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    path: Path,
) -> None:
    with torch.no_grad():
        program = torch.onnx.export(
            module.eval(), inputs, dynamic_shapes=shapes, input_names=input_names,
            output_names=output_names, dynamo=True, opset_version=OPSET, verbose=False,
        )  # fmt: skip
    assert program is not None
    program.save(path)


@contextmanager
def _plain_tables(net: Transformer) -> Iterator[None]:
    """ONNX cannot read bits as numbers, as our tables of angles and slopes are kept."""
    tables = [part for part in net.modules() if isinstance(part, FixedTable)]
    before = [table.bits for table in tables]
    for table in tables:
        table.bits = table.values.clone()
    try:
        yield
    finally:
        for table, bits in zip(tables, before, strict=True):
            table.bits = bits


def _empty(net: Transformer, batch: int, length: int) -> list[Tensor]:
    """Keys and values of nothing yet, for each layer."""
    stack = net.config.decoder
    assert stack is not None
    shape = (batch, length, stack.attention.kv_heads, stack.head_dim)
    return [torch.zeros(shape) for _ in range(2 * stack.num_layers)]


def _tokens(net: Transformer, length: int) -> Tensor:
    return torch.zeros(3, min(length, net.config.max_seq_len), dtype=torch.long)


def kept_names(prefix: str, layers: int) -> list[str]:
    """What goes in and out for each layer."""
    return [f"{prefix}{kind}_{layer}" for layer in range(layers) for kind in ("key", "value")]
