"""The tensors of a Hugging Face directory: safetensors, in one file or in shards."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON ({error}); copy the file again") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: holds a {type(values).__name__}, not an object; copy it again")
    return values


class TensorFiles:
    """Reads tensors by name, each only when it is asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.handles: dict[Path, Any] = {}
        self.places = self._find()

    def _find(self) -> dict[str, Path]:
        index = self.directory / INDEX
        if index.exists():
            weight_map = read_json(index).get("weight_map")
            if not isinstance(weight_map, dict):
                raise ValueError(f"{index}: weight_map is missing; copy the file again")
            places = {name: self.directory / str(shard) for name, shard in weight_map.items()}
            for name, path in places.items():
                if name not in set(self._open(path).keys()):
                    raise ValueError(f"{path}: lacks {name}, which {INDEX} promises; copy it again")
            return places
        if (self.directory / SINGLE).exists():
            return dict.fromkeys(
                self._open(self.directory / SINGLE).keys(), self.directory / SINGLE
            )
        pickles = sorted(self.directory.glob("*.bin"))
        if pickles:
            raise ValueError(
                f"{pickles[0]}: is a pickle, which can run any code when it is opened; "
                "save the model as safetensors"
            )
        raise FileNotFoundError(
            f"{self.directory / SINGLE}: no such file, nor {INDEX}; copy the model's weights there"
        )

    def _open(self, path: Path) -> Any:
        if path not in self.handles:
            if not path.exists():
                raise FileNotFoundError(f"{path}: no such file, but {INDEX} names it; copy it")
            try:
                self.handles[path] = safe_open(path, framework="pt")
            except SafetensorError as error:
                raise ValueError(
                    f"{path}: is no whole safetensors file ({error}); copy it again"
                ) from None
        return self.handles[path]

    def get(self, name: str) -> Tensor:
        """A tensor as stored, in memory of its own.

        The file is mapped for this tensor alone: pages of others, once read, would stay in memory.
        """
        with safe_open(self.places[name], framework="pt") as file:
            tensor: Tensor = file.get_tensor(name).clone()
        return tensor

    def dtype(self, name: str) -> torch.dtype:
        """A tensor's dtype, without reading it."""
        return DTYPES[self._open(self.places[name]).get_slice(name).get_dtype()]

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without reading it."""
        return tuple(self._open(self.places[name]).get_slice(name).get_shape())
