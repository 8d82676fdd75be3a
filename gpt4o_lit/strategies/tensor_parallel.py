"""Tensor parallelism: a group of processes works on one batch, each with parts of the matrices."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import default_pg_timeout
from torch.distributed.tensor import DTensor

from gpt4o_lit.strategies.fsdp2 import FSDP2
from gpt4o_lit.strategies.needs import (
    A_COPY,
    WHOLE_LAYERS,
    WHOLE_VOCABULARY,
    WHOLE_WEIGHTS,
)
from gpt4o_lit.strategies.parallel_layers import Ranks, share_
from gpt4o_lit.strategies.split import Split, require_shares, splits_of

NETWORK = "transformer."


class TensorParallel(FSDP2):
    """Shares each block's heads and channels, and the vocabulary, among the processes of a group.

    All processes of a group read the same batch (arXiv:1909.08053). Between attention and
    feed-forward each has the hidden states of some tokens (arXiv:2205.05198), and of the logits
    each makes those of its pieces. With more processes than a group has, FSDP2 holds what each
    process of a group has in parts over the groups, which read batches of their own.

    Checkpoints are whole, one file as with one process.

    Args:
        size: Processes of a group; those of one machine talk fastest. Default: all processes.
        reshard_after_forward: With several groups: as of FSDP2.
        timeout: How long a process waits for another, such as 0:10:00.
    """

    lacks = (WHOLE_WEIGHTS, WHOLE_LAYERS, A_COPY, WHOLE_VOCABULARY)
    leaves_parts = False

    def __init__(
        self,
        size: int | None = None,
        reshard_after_forward: bool = True,
        timeout: timedelta = default_pg_timeout,
    ) -> None:
        if size is not None and size < 1:
            raise ValueError(f"size ({size}) must be at least 1; leave it out for all processes")
        super().__init__(reshard_after_forward=reshard_after_forward, timeout=timeout)
        self.size = size
        self._splits: dict[str, Split] = {}
        self._split_of: dict[nn.Parameter, Split] = {}

    @property
    def group_size(self) -> int:
        """Processes that share a network and read the same batch."""
        return self.size or self.num_nodes * self.num_processes

    @property
    def group(self) -> Any:
        """Those of this process."""
        return self.device_mesh["tensor_parallel"].get_group()

    @property
    def group_rank(self) -> int:
        """Which of them it is; neighbours are a group."""
        return self.global_rank % self.group_size

    def setup_environment(self) -> None:
        """Refuse what cannot be shared, then meet the other processes.

        Raises:
            ValueError: something needs weights, or the vocabulary, whole; or the processes do not
                divide the network.
        """
        task: Any = self.lightning_module
        processes = self.num_nodes * self.num_processes
        if processes % self.group_size:
            raise ValueError(
                f"size ({self.size}) must divide the number of processes ({processes}); set it to "
                "a divisor, or --trainer.devices to a multiple"
            )
        self._tensor_parallel_size = self.group_size
        require_shares(task.known_config(), self.group_size)
        super().setup_environment()

    def refuse_who_needs_more(self) -> None:
        """The same; and what shared layers compute wrongly.

        Raises:
            ValueError: the network is compiled.
        """
        super().refuse_who_needs_more()
        task: Any = self.lightning_module
        if task.compile_network:
            raise ValueError(
                "compile (true) gives wrong gradients with TensorParallel; set "
                "model.init_args.compile to false"
            )

    def parallelize(self, task: Any) -> None:
        """Leave this process its part of the network, and shard that over the groups."""
        require_shares(task.transformer.config, self.group_size)
        self._splits = splits_of(task.transformer)
        share_(task.transformer, Ranks(self.group, self.group_rank, self.group_size))
        if self.world_size > self.group_size:
            super().parallelize(task)
        self._split_of = {
            weight: self._splits[name]
            for name, weight in task.transformer.named_parameters()
            if name in self._splits
        }

    # Gradients -----------------------------------------------------------------------------------

    @torch.no_grad()
    def add_up_gradients(self, network: nn.Module) -> None:
        """Make those of weights that each process has whole the sum of all processes'.

        It is due once a step, before gradients are looked at.
        """
        shared = [
            _local(weight.grad)
            for weight in network.parameters()
            if weight.grad is not None and weight not in self._split_of
        ]
        if shared:
            flat = torch.cat([grad.flatten() for grad in shared])
            distributed.all_reduce(flat, group=self.group)
            sums = flat.split([grad.numel() for grad in shared])
            for grad, total in zip(shared, sums, strict=True):
                grad.copy_(total.view_as(grad))

    def sum_over_group(self, weights: list[nn.Parameter], numbers: Tensor) -> Tensor:
        """The sum of a number for each weight, of a weight in parts those of all processes."""
        in_parts = torch.tensor([weight in self._split_of for weight in weights])
        in_parts = in_parts.to(numbers.device)
        total = numbers.where(in_parts, 0.0).sum()
        distributed.all_reduce(total, group=self.group)
        return total + numbers.where(~in_parts, 0.0).sum()

    # Checkpoints ---------------------------------------------------------------------------------

    @torch.no_grad()
    def whole_state(self, module: nn.Module) -> dict[str, Any]:
        """The whole weights of a module of the task, on every process."""
        return dict(self._whole_weights(module))

    @torch.no_grad()
    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole weights, on the CPU; nothing on all processes but the first."""
        assert self.lightning_module is not None
        state = {}
        for name, weight in self._whole_weights(self.lightning_module):
            if self.is_global_zero:
                state[name] = weight.cpu()  # one by one: they need not fit a device together
        return state

    def _whole_weights(self, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
        for name, weight in super().whole_state(module).items():
            yield name, self._joined(weight, self._splits.get(name.removeprefix(NETWORK)))

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this process's part of whole weights."""
        self._deal_out()  # which says how they are split
        own = {
            name: self._own(value, self._splits.get(name.removeprefix(NETWORK)))
            for name, value in checkpoint["state_dict"].items()
        }
        super().load_model_state_dict({"state_dict": own}, strict)

    def _whole(self, value: Any, weight: nn.Parameter) -> Any:
        whole = super()._whole(value, weight)
        has_parts = isinstance(value, Tensor) and value.ndim > 0
        return self._joined(whole, self._split_of.get(weight)).cpu() if has_parts else whole

    def _part(self, value: Any, weight: nn.Parameter) -> Any:
        if isinstance(value, Tensor) and value.ndim:
            value = self._own(value, self._split_of.get(weight))
        return super()._part(value, weight)

    def _own(self, whole: Tensor, split: Split | None) -> Tensor:
        if split is None:
            return whole
        return split.own(whole, self.group_rank, self.group_size).contiguous()

    def _joined(self, own: Tensor, split: Split | None) -> Tensor:
        if split is None:
            return own
        own = own.to(self.root_device).contiguous()
        parts = [torch.empty_like(own) for _ in range(self.group_size)]
        distributed.all_gather(parts, own, group=self.group)
        return split.joined(parts)


def _local(grad: Tensor) -> Tensor:
    return grad.to_local() if isinstance(grad, DTensor) else grad
