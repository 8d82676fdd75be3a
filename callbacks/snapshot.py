"""A moment of a run, copied into memory that is kept for the next one."""

from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves, tree_map_only


class Snapshot:
    """Copies checkpoints, one at a time, into memory on the CPU.

    What the system gives it is slow the first time that it is written to, page by page, so it is
    kept from copy to copy. Of what lies on a GPU it is pinned, which is faster to copy to.
    """

    def __init__(self) -> None:
        self._room: dict[tuple[int, bool], list[UntypedStorage]] = {}

    def make_room(self, state: Any) -> None:
        """Have memory for a copy of it, written to once."""
        self._room = {}
        for storage in _storages(state).values():
            own = _empty(storage.nbytes(), storage.is_cuda)
            torch.empty(0, dtype=torch.uint8).set_(own).zero_()
            self._room.setdefault((storage.nbytes(), storage.is_cuda), []).append(own)

    def of(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """The same with tensors of its own; those that share their memory still do.

        The copy before this one is overwritten.
        """
        left, self._room = self._room, {}
        own: dict[int, UntypedStorage] = {}
        for key, storage in _storages(checkpoint).items():
            kind = storage.nbytes(), storage.is_cuda
            fitting = left.get(kind)
            own[key] = fitting.pop() if fitting else _empty(*kind)
            own[key].copy_(storage)
            self._room.setdefault(kind, []).append(own[key])

        def copy(tensor: Tensor) -> Tensor:
            if isinstance(tensor, DTensor):
                return _with_local(tensor, copy(tensor.to_local()))
            place = tensor.storage_offset(), tensor.size(), tensor.stride()
            storage = own[tensor.untyped_storage()._cdata]
            return torch.empty(0, dtype=tensor.dtype).set_(storage, *place)

        return tree_map_only(Tensor, copy, checkpoint)


def _storages(state: Any) -> dict[int, UntypedStorage]:
    """Of all tensors in it, each once."""
    tensors = (leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor))
    local = (each.to_local() if isinstance(each, DTensor) else each for each in tensors)
    return {storage._cdata: storage for storage in (each.untyped_storage() for each in local)}


def _empty(nbytes: int, pinned: bool) -> UntypedStorage:
    return torch.empty(nbytes, dtype=torch.uint8, pin_memory=pinned).untyped_storage()


def _with_local(tensor: DTensor, local: Tensor) -> DTensor:
    shape, stride = tensor.shape, tensor.stride()
    return DTensor.from_local(
        local, tensor.device_mesh, tensor.placements, run_check=False, shape=shape, stride=stride
    )
