"""Opens a GGUF file by llama.cpp itself, for checks and for measuring against it."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# T tokens, V vocab

FLOAT32 = 0
"""GGML's number for float32, of which its cache is made here; else it rounds to float16."""


class LlamaCpp:
    """A GGUF file in llama.cpp, on the CPU.

    Args:
        context: Most tokens read and written.
        num_threads: None: as llama.cpp likes it.

    Raises:
        ModuleNotFoundError: llama-cpp-python is not installed.
    """

    def __init__(self, path: Path, context: int, num_threads: int | None = None) -> None:
        library: Any = importlib.import_module("llama_cpp")
        self.name = f"llama-cpp-python {library.__version__}"
        self._model = library.Llama(
            str(path), n_ctx=context, n_batch=context, n_gpu_layers=0, n_threads=num_threads,
            n_threads_batch=num_threads, logits_all=True, verbose=False, type_k=FLOAT32,
            type_v=FLOAT32,
        )  # fmt: skip

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without marks around it."""
        return list(self._model.tokenize(text.encode(), add_bos=False, special=False))

    def logits(self, ids: Sequence[int]) -> Tensor:
        """float32 (T, V)."""
        self._model.reset()
        self._model.eval(list(ids))
        return torch.from_numpy(self._model.scores[: len(ids)].copy())

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """The likeliest tokens behind these."""
        written: list[int] = []
        logits_TV = self.logits(ids)
        for _ in range(count):
            written.append(int(logits_TV[-1].argmax()))
            self._model.eval(written[-1:])
            at = self._model.n_tokens
            logits_TV = torch.from_numpy(self._model.scores[at - 1 : at].copy())
        return written
