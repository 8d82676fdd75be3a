"""A GGUF file in llama.cpp itself."""

import ctypes
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
        every: Keep the logits of every token, which `logits` and `greedy` give, and a cache in
            float32. Else there are `read` and `write` alone, and the cache is in float16, as
            llama.cpp has it by itself.

    Raises:
        ModuleNotFoundError: llama-cpp-python is not installed.
    """

    def __init__(
        self, path: Path, context: int, num_threads: int | None = None, *, every: bool = True
    ) -> None:
        library: Any = importlib.import_module("llama_cpp")
        self._array: Any = importlib.import_module("numpy.ctypeslib").as_array
        self.name = f"llama-cpp-python {library.__version__}"
        kind = FLOAT32 if every else None
        self._model = library.Llama(
            str(path), n_ctx=context, n_batch=context, n_gpu_layers=0, n_threads=num_threads,
            n_threads_batch=num_threads, logits_all=every, verbose=False, type_k=kind,
            type_v=kind,
        )  # fmt: skip
        self._library, self._num_pieces = library, self._model.n_vocab()

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without marks around it."""
        return list(self._model.tokenize(text.encode(), add_bos=False, special=False))

    def read(self, ids: Sequence[int]) -> Tensor:
        """Start anew with these tokens; scores of what follows, float32 (V,)."""
        memory = self._library.llama_get_memory(self._model._ctx.ctx)
        self._library.llama_memory_clear(memory, True)
        return self._next(ids)

    def write(self, token: int) -> Tensor:
        """Scores behind one more token, float32 (V,)."""
        return self._next([token])

    def _next(self, ids: Sequence[int]) -> Tensor:
        context = self._model._ctx
        tokens = (ctypes.c_int32 * len(ids))(*ids)  # of which a batch knows the address alone
        batch = self._library.llama_batch_get_one(tokens, len(ids))
        if failed := self._library.llama_decode(context.ctx, batch):
            raise RuntimeError(
                f"llama.cpp could not read {len(ids)} tokens (llama_decode: {failed})"
            )
        row = self._array(context.get_logits_ith(-1), shape=(self._num_pieces,))
        return torch.from_numpy(row.copy())

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
