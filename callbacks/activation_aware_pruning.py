"""Pruning at once by what the layers read on some batches."""

from typing import Any

from lightning import Trainer
from torch import Tensor
from tqdm import tqdm

from gpt4o_lit.callbacks.calibration import calibrating, require_batches
from gpt4o_lit.callbacks.pruning import Pruning
from gpt4o_lit.compression import (
    Pattern,
    Share,
    SparsitySchedule,
    Targets,
    prune_blocks_,
    require_in_blocks,
)
from gpt4o_lit.compression.activation_aware import Method


class ActivationAwarePruning(Pruning):
    """Prunes once, block after block, on batches of the training data; the steps behind it heal.

    Args:
        sparsity: Share pruned of each matrix. Default: 0.5.
        pattern: In its place N:M, such as 2:4: keep N of every M weights of a row.
        at: Step before which it prunes; below 1 a share of all steps.
        num_batches: Batches that each process looks at.
        targets: The matrices. Default: those of attention and feed-forward.
        enabled: False prunes nothing.
    """

    method: Method

    def __init__(
        self,
        sparsity: float | None = None,
        pattern: str | None = None,
        at: float = 0,
        num_batches: int = 16,
        targets: Targets | None = None,
        enabled: bool = True,
    ) -> None:
        parsed = None if pattern is None else Pattern.parse(pattern)
        if parsed is not None and sparsity is not None:
            raise ValueError(
                f"sparsity ({sparsity}) and pattern ({pattern}) both say how much is pruned; leave "
                "one of them out"
            )
        share = parsed.sparsity if parsed is not None else 0.5 if sparsity is None else sparsity
        schedule = SparsitySchedule(final=share, shape="one_shot", begin=at)
        super().__init__(schedule, targets, parsed, enabled)
        self.num_batches = num_batches

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Matrices outside of blocks and too many batches are refused too."""
        super().on_fit_start(trainer, pl_module)
        if self.enabled:
            require_in_blocks(list(self.masks.weights), self.method)
            require_batches(trainer, self.num_batches)

    def masks_at(self, step: int, trainer: Trainer, pl_module: Any) -> dict[str, Tensor]:
        """Prune; what the processes saw is summed, so that all of them do the same."""
        network = pl_module.transformer
        kept: dict[str, Tensor] = {}
        share = Share(sparsity=self.schedule.final, pattern=self.pattern)
        config = network.config
        num_blocks = sum(stack.num_layers for stack in (config.encoder, config.decoder) if stack)
        with calibrating(trainer, pl_module, self.num_batches) as forwards:
            pruned = prune_blocks_(
                network,
                self.masks.weights,
                forwards,
                self.method,
                share,
                reduce=lambda sums: trainer.strategy.reduce(sums, reduce_op="sum"),
            )
            show = trainer.is_global_zero
            for masks in tqdm(pruned, "pruning blocks", num_blocks, leave=False, disable=not show):
                kept |= masks
        return kept


class WandaPruning(ActivationAwarePruning):
    """Prunes in each row the weights that are small and read small inputs (arXiv:2306.11695)."""

    method: Method = "wanda"


class SparseGPTPruning(ActivationAwarePruning):
    """Prunes column by column; the weights right of each make good for it (arXiv:2301.00774)."""

    method: Method = "sparse_gpt"
