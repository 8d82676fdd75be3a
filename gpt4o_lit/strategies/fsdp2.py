"""FSDP2: each process holds a part of the weights, of their gradients and of the optimizer."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import default_pg_timeout
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from gpt4o_lit.strategies.needs import A_COPY, WHOLE_WEIGHTS, Need
from gpt4o_lit.strategies.parts import HoldsParts

WHOLE = StateDictOptions(full_state_dict=True)
STEPS = ("training_step", "validation_step", "test_step", "predict_step")


class FSDP2(HoldsParts, ModelParallelStrategy):
    """Shards every block over all processes, and what is outside the blocks as one more part.

    A block's weights are gathered when it is read, and its gradients scattered when they are known
    (ZeRO, arXiv:1910.02054; torch.distributed.fsdp.fully_shard). What is outside the blocks
    (embeddings, head, last norm) is gathered for a whole step. Checkpoints are whole, one file as
    with one process, or folders of parts; a run may go on with any number of processes from both.

    Args:
        reshard_after_forward: Let go of a block's gathered weights until the backward (ZeRO-3);
            False keeps them, which is faster and takes more memory (ZeRO-2).
        replicas: In how many groups of processes the whole network is held, each in parts (HSDP,
            arXiv:2304.11277): parts are gathered within a group, as of one machine, and gradients
            alone are summed over groups.
        cpu_offload: Keep the parts in the memory of the CPU; a GPU holds what it works on.
        save_distributed_checkpoint: Have each process write its parts (a folder that all can reach)
            where else the first one gathers them all; `gpt4o-lit consolidate` makes one file of it.
        timeout: How long a process waits for another, such as 0:10:00.
    """

    lacks: ClassVar[tuple[Need, ...]] = (WHOLE_WEIGHTS, A_COPY)
    leaves_parts = True

    def __init__(
        self,
        reshard_after_forward: bool = True,
        replicas: int = 1,
        cpu_offload: bool = False,
        save_distributed_checkpoint: bool = False,
        timeout: timedelta = default_pg_timeout,
    ) -> None:
        if replicas < 1:
            raise ValueError(f"replicas ({replicas}) must be at least 1; leave it out for one")
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=save_distributed_checkpoint,
            timeout=timeout,
        )
        self.reshard_after_forward = reshard_after_forward
        self.replicas, self.cpu_offload = replicas, cpu_offload
        self._dealt_out = False

    def setup_environment(self) -> None:
        """All processes hold parts of the one network; what cannot is refused before they meet.

        Raises:
            ValueError: a callback or the optimizer needs weights that are whole, or the processes
                are not as many in each group.
        """
        self.refuse_who_needs_more()
        processes = self.num_nodes * self.num_processes
        self._data_parallel_size = processes // int(self._tensor_parallel_size)
        if processes % self.replicas:
            raise ValueError(
                f"replicas ({self.replicas}) must divide the number of processes ({processes}); "
                "set it to the number of machines"
            )
        super().setup_environment()

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Which batches a process reads; those that share a network read the same."""
        shares = int(self._tensor_parallel_size)
        return {"num_replicas": self.world_size // shares, "rank": self.global_rank // shares}

    def setup(self, trainer: Any) -> None:
        """Deal the network out, unless its weights were loaded into parts already."""
        self._deal_out()
        super().setup(trainer)

    def _deal_out(self) -> None:
        if not self._dealt_out:
            self.parallelize(self.lightning_module)
            self._dealt_out = True

    def parallelize(self, task: Any) -> None:
        """Shard the network of a task, which each process has built alike."""
        pinned = self.root_device.type != "cpu"  # where they are copied from to a device
        offload = CPUOffloadPolicy(pinned) if self.cpu_offload else OffloadPolicy()
        shared: dict[str, Any] = {"mesh": self._mesh(), "offload_policy": offload}
        for stack in (task.transformer.encoder, task.transformer.decoder):
            for block in [] if stack is None else stack.blocks:
                fully_shard(block, reshard_after_forward=self.reshard_after_forward, **shared)
        # A step reads the head and the embeddings where it likes, so that it is what gathers them.
        fully_shard(task, reshard_after_forward=False, **shared)
        for step in STEPS:
            register_fsdp_forward_method(task, step)

    def model_to_device(self) -> None:
        """Nothing where parts stay in the memory of the CPU: what else there is was moved."""
        if not self.cpu_offload:
            super().model_to_device()

    def _get_process_group_backend(self) -> str:
        """One for CPUs too where gradients lie there, whose norms are summed."""
        backend = super()._get_process_group_backend()
        both = self.cpu_offload and backend == "nccl"
        return "cpu:gloo,cuda:nccl" if both else backend

    def whole_state(self, module: nn.Module) -> dict[str, Any]:
        """The whole weights of a module, on every process."""
        return get_model_state_dict(module, options=WHOLE)

    def _mesh(self) -> DeviceMesh:
        """All processes, or groups of neighbours of them."""
        if self.replicas == 1:
            return self.device_mesh["data_parallel"]
        shape = (self.replicas, self.world_size // self.replicas)
        return init_device_mesh(self.root_device.type, shape, mesh_dim_names=("replicate", "shard"))

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None
    ) -> None:
        """Write one file, or all processes their parts."""
        if self._save_distributed_checkpoint:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options)
        else:
            super().save_checkpoint(checkpoint, filepath, storage_options)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this process's part of whole weights, or read it from the folder."""
        assert self.model is not None
        self._deal_out()
        state = checkpoint["state_dict"]
        if any(weight.is_meta for weight in state.values()):
            here = {name: weight for name, weight in state.items() if not weight.is_meta}
            self.model.load_state_dict(here, strict=False)
            self._read({f"state_dict.{n}": part for n, part in self.model.named_parameters()})
        else:
            set_model_state_dict(self.model, state, options=WHOLE)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """The whole state, by the places that weights have in the optimizer's groups as it is
        without parts; nothing on all processes but the first. Or each process's parts."""
        optimizer = getattr(optimizer, "_optimizer", optimizer)
        state, weights = optimizer.state_dict(), _weights(optimizer)
        if self._save_distributed_checkpoint:
            return dict(state)
        whole = {
            place: {name: self._whole(value, weights[place]) for name, value in parts.items()}
            for place, parts in state["state"].items()
        }
        return state | {"state": whole} if self.is_global_zero else {}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's part of the whole state, or read it from the folder."""
        states = checkpoint["optimizer_states"]
        for number, (optimizer, whole) in enumerate(zip(self.optimizers, states, strict=True)):
            places = [place for group in whole["param_groups"] for place in group["params"]]
            like = dict(zip(places, _weights(optimizer), strict=True))
            parts = {
                place: {name: self._part(value, like[place]) for name, value in state.items()}
                for place, state in whole["state"].items()
            }
            self._read(
                {
                    f"optimizer_states.{number}.state.{place}.{name}": parts[place][name]
                    for place, state in whole["state"].items()
                    for name, value in state.items()
                    if isinstance(value, Tensor) and value.is_meta
                }
            )
            optimizer.load_state_dict({**whole, "state": parts})

    def _read(self, parts: dict[str, Any]) -> None:
        """Fill this process's parts from the folder of the checkpoint."""
        if parts:
            load(parts, storage_reader=HuggingFaceStorageReader(str(self.loaded_path)))

    def _whole(self, value: Any, weight: nn.Parameter) -> Any:
        """Of what the optimizer knows of a weight, on the CPU where it is a tensor in parts."""
        return value.full_tensor().cpu() if isinstance(value, DTensor) else value

    def _part(self, value: Any, weight: nn.Parameter) -> Any:
        """Of a tensor as large as a weight the part that the process has of the weight."""
        if not isinstance(value, Tensor) or not value.ndim or not isinstance(weight, DTensor):
            return value
        if value.is_meta:
            return torch.zeros_like(weight, dtype=value.dtype)
        value = value.to(weight.device)
        return distribute_tensor(value, weight.device_mesh, weight.placements, src_data_rank=None)


def _weights(optimizer: Any) -> list[nn.Parameter]:
    """Those of all groups, in their order."""
    return [weight for group in optimizer.param_groups for weight in group["params"]]
