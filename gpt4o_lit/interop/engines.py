"""Other engines that write text with a run's decoder: ONNX Runtime, OpenVINO, llama.cpp."""

import importlib
import json
import shutil
from abc import ABC, abstractmethod
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


class _Graph(ABC):
    """A decoder's graph, which is given the keys and values that it gave."""

    def __init__(self, run: OpenedRun) -> None:
        stack = run.transformer.config.decoder
        assert stack is not None
        shape = (1, 0, stack.attention.kv_heads, stack.head_dim)  # of no token: (1, P, K, H)
        self.nothing: Any = np.zeros(shape, dtype=np.float32)
        self.given = kept_names("past_", stack.num_layers)
        self.found = kept_names("", stack.num_layers)
        self.kept: list[Any] = []

    def read(self, ids: Sequence[int]) -> Tensor:
        """Start anew with these tokens; scores of what follows, float32 (V,)."""
        self.kept = [self.nothing for _ in self.given]
        return self._run(ids)

    def write(self, token: int) -> Tensor:
        """Scores behind one more token, float32 (V,)."""
        return self._run([token])

    @abstractmethod
    def _run(self, ids: Sequence[int]) -> Tensor:
        """Read more tokens, and keep what they leave."""


class OnnxRuntime(_Graph):
    """In ONNX Runtime, with which keys and values stay."""

    def __init__(self, path: Path, run: OpenedRun, num_threads: int) -> None:
        super().__init__(run)
        library: Any = importlib.import_module("onnxruntime")
        self.name = f"ONNX Runtime {library.__version__}"
        options = library.SessionOptions()
        options.intra_op_num_threads = num_threads
        self._session = library.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.nothing = library.OrtValue.ortvalue_from_numpy(self.nothing)

    def _run(self, ids: Sequence[int]) -> Tensor:
        binding = self._session.io_binding()
        binding.bind_cpu_input("tokens", np.array([ids], dtype=np.int64))
        for name, kept in zip(self.given, self.kept, strict=True):
            binding.bind_ortvalue_input(name, kept)
        for name in ("logits", *self.found):
            binding.bind_output(name)
        self._session.run_with_iobinding(binding)
        logits, *self.kept = binding.get_outputs()
        return torch.from_numpy(logits.numpy()[0, -1])


class OpenVino(_Graph):
    """In OpenVINO, in float32 where numbers are not whole."""

    def __init__(self, path: Path, run: OpenedRun, num_threads: int) -> None:
        super().__init__(run)
        library: Any = importlib.import_module("openvino")
        self.name = f"OpenVINO {library.__version__.partition('-')[0]}"
        core = library.Core()
        settings = {
            "INFERENCE_NUM_THREADS": num_threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._request = core.compile_model(path, "CPU", settings).create_infer_request()

    def _run(self, ids: Sequence[int]) -> Tensor:
        given = dict(zip(self.given, self.kept, strict=True))
        self._request.infer({"tokens": np.array([ids], dtype=np.int64), **given})
        # Copies, for the next answer is written where this one is.
        self.kept = [self._request.get_tensor(name).data.copy() for name in self.found]
        return torch.from_numpy(self._request.get_tensor("logits").data[0, -1].copy())


Engine = OnnxRuntime | OpenVino | LlamaCpp
_ENGINES: dict[str, Callable[[Path, OpenedRun, int], Engine]] = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "llamacpp": lambda path, run, threads: LlamaCpp(
        path, run.transformer.config.max_seq_len, threads, every=False
    ),
}


def open_engine(
    name: str,
    run: OpenedRun,
    directory: Path,
    told: Callable[[str], object] = lambda words: None,
) -> Engine:
    """A run's decoder in another engine, with as many threads as PyTorch has.

    What the engine reads is written once, to the directory, and anew when the checkpoint is another
    one.

    Args:
        told: Is told when that is written, which takes some seconds.

    Raises:
        ValueError: the engine is not installed, or it cannot carry the network.
    """
    net = run.transformer
    if net.encoder is not None or net.decoder is None or run.bidirectional_prompt:
        raise ValueError(
            f"--engine {name} is for decoders that read from left to right; leave it out"
        )
    _require_installed(name)
    state = run.checkpoint.stat()
    made_of = {"checkpoint": run.checkpoint.name, "bytes": state.st_size, "time": state.st_mtime_ns}
    note = directory / MADE_OF
    if not note.is_file() or json.loads(note.read_text(encoding="utf-8")) != made_of:
        told(f"writing what {name} reads to {directory}")
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
