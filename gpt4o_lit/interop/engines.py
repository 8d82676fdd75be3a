"""Other engines that write text with a run's decoder: ONNX Runtime, OpenVINO, llama.cpp."""

import importlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpt4o_lit.interop.gguf import FILE, write_gguf
from gpt4o_lit.interop.llama_cpp import LlamaCpp
from gpt4o_lit.interop.onnx import GRAPH, kept_names, write_graphs
from gpt4o_lit.interop.run import OpenedRun

# T tokens, V vocab, K key heads, H head_dim, P tokens in the cache

FILES = {"onnxruntime": GRAPH, "openvino": GRAPH, "llamacpp": FILE}
MADE_OF = "made_of.json"


class OnnxRuntime:
    """A decoder's graph in ONNX Runtime, whose keys and values stay with it."""

    def __init__(self, path: Path, run: OpenedRun, num_threads: int) -> None:
        library: Any = importlib.import_module("onnxruntime")
        self.name = f"ONNX Runtime {library.__version__}"
        options = library.SessionOptions()
        options.intra_op_num_threads = num_threads
        self._session = library.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._empty = library.OrtValue.ortvalue_from_numpy(_nothing(run))
        self._names = kept_names("past_", _layers(run))
        self._kept: list[Any] = []

    def read(self, ids: Sequence[int]) -> Tensor:
        """Start anew with these tokens; scores of what follows, float32 (V,)."""
        self._kept = [self._empty] * len(self._names)
        return self._run(ids)

    def write(self, token: int) -> Tensor:
        """Scores behind one more token, float32 (V,)."""
        return self._run([token])

    def _run(self, ids: Sequence[int]) -> Tensor:
        binding = self._session.io_binding()
        binding.bind_cpu_input("tokens", np.array([ids], dtype=np.int64))
        for name, kept in zip(self._names, self._kept, strict=True):
            binding.bind_ortvalue_input(name, kept)
        for name in self._outputs:
            binding.bind_output(name)
        self._session.run_with_iobinding(binding)
        logits, *self._kept = binding.get_outputs()
        return torch.from_numpy(logits.numpy()[0, -1])


class OpenVino:
    """The same graph in OpenVINO, in float32 where numbers are not whole."""

    def __init__(self, path: Path, run: OpenedRun, num_threads: int) -> None:
        library: Any = importlib.import_module("openvino")
        self.name = f"OpenVINO {library.__version__.partition('-')[0]}"
        core = library.Core()
        settings = {
            "INFERENCE_NUM_THREADS": num_threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._request = core.compile_model(path, "CPU", settings).create_infer_request()
        self._tensor, self._empty = library.Tensor, _nothing(run)
        self._names, self._now = kept_names("past_", _layers(run)), kept_names("", _layers(run))
        self._kept: list[Any] = []

    def read(self, ids: Sequence[int]) -> Tensor:
        """Start anew with these tokens; scores of what follows, float32 (V,)."""
        self._kept = [self._empty for _ in self._names]
        return self._run(ids)

    def write(self, token: int) -> Tensor:
        """Scores behind one more token, float32 (V,)."""
        return self._run([token])

    def _run(self, ids: Sequence[int]) -> Tensor:
        given = dict(zip(self._names, self._kept, strict=True))
        self._request.infer({"tokens": np.array([ids], dtype=np.int64), **given})
        # Copies, for the next answer is written where this one is.
        self._kept = [self._request.get_tensor(name).data.copy() for name in self._now]
        return torch.from_numpy(self._request.get_tensor("logits").data[0, -1].copy())


Engine = OnnxRuntime | OpenVino | LlamaCpp
_ENGINES: dict[str, Callable[[Path, OpenedRun, int], Engine]] = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "llamacpp": lambda path, run, threads: LlamaCpp(
        path, run.transformer.config.max_seq_len, threads, every=False
    ),
}


def open_engine(name: str, run: OpenedRun, directory: Path | None = None) -> Engine:
    """A run's decoder in another engine, with as many threads as PyTorch has.

    What the engine reads is written once, to `RUN/engines/NAME` or the directory given, and anew
    when the checkpoint is another one.

    Raises:
        ValueError: the engine is not installed, or it cannot carry the network.
    """
    net = run.transformer
    if net.encoder is not None or net.decoder is None or run.bidirectional_prompt:
        raise ValueError(
            f"--engine {name} is for decoders that read from left to right; leave it out"
        )
    _require_installed(name)
    directory = directory or run.path / "engines" / name
    state = run.checkpoint.stat()
    made_of = {"checkpoint": run.checkpoint.name, "bytes": state.st_size, "time": state.st_mtime_ns}
    note = directory / MADE_OF
    if not note.is_file() or json.loads(note.read_text(encoding="utf-8")) != made_of:
        shutil.rmtree(directory, ignore_errors=True)
        if name == "llamacpp":
            write_gguf(run, directory)
        else:
            write_graphs(net, directory, last=True)
        note.write_text(json.dumps(made_of), encoding="utf-8")
    return _ENGINES[name](directory / FILES[name], run, torch.get_num_threads())


def _require_installed(name: str) -> None:
    needed = ["llama_cpp", "gguf"] if name == "llamacpp" else [name, "onnxscript"]
    for module in needed:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"--engine {name} needs {error.name}; pip install 'gpt4o-lit[{name}]'"
            ) from error


def _layers(run: OpenedRun) -> int:
    stack = run.transformer.config.decoder
    assert stack is not None
    return stack.num_layers


def _nothing(run: OpenedRun) -> np.ndarray[Any, Any]:
    """Keys or values of no token: (1, 0, K, H)."""
    stack = run.transformer.config.decoder
    assert stack is not None
    return np.zeros((1, 0, stack.attention.kv_heads, stack.head_dim), dtype=np.float32)
