"""Pruning while a network trains, by magnitude."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn

from gpt4o_lit.compression import Masks, Pattern, SparsitySchedule, Targets, magnitude_masks
from gpt4o_lit.compression.magnitude import Scope


class Pruning(Callback, ABC):
    """What all pruning has in common: when, which matrices, and that it holds.

    What is pruned is zero after every step, has no gradient, and stays pruned: in checkpoints, on
    resume, and in averages of weights. Logs `pruning/sparsity`. A subclass gives `masks_at`.

    Args:
        schedule: The share that is pruned, and when.
        targets: The matrices.
        pattern: N of every M weights in a row are kept; else the share is of whatever the subclass
            says.
        enabled: False prunes nothing.
    """

    needs_whole_weights: ClassVar[bool] = True

    def __init__(
        self,
        schedule: SparsitySchedule,
        targets: Targets | None,
        pattern: Pattern | None,
        enabled: bool,
    ) -> None:
        self.schedule, self.targets = schedule, targets or Targets()
        self.pattern, self.enabled = pattern, enabled
        self.pruned_step = -1
        self._restored: dict[str, Any] = {}

    @abstractmethod
    def masks_at(self, step: int, trainer: Trainer, pl_module: Any) -> dict[str, Tensor]:
        """Masks of all matrices, True where a weight is kept; may change the weights too."""

    @property
    def state_key(self) -> str:
        """Several of them, over different targets, keep apart."""
        return self._generate_state_key(targets=repr(self.targets))

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Choose the matrices; whatever does not fit is told before training."""
        if not self.enabled:
            return
        self.masks = Masks(self.targets.weights(pl_module.transformer))
        if self.pattern is not None:
            for name, weight in self.masks.weights.items():
                self.pattern.require_width(name, weight.shape[-1])

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Go on with the masks of the checkpoint, if any, and hold them through each step."""
        if not self.enabled:
            return
        self.max_steps: int = pl_module.max_steps
        self.schedule.window(self.max_steps)
        self.masks.load_state_dict(self._restored)
        self._restored = {}
        for optimizer in trainer.optimizers:
            self.masks.hold(optimizer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Prune where the schedule says so, once before a step."""
        step = trainer.global_step
        if not self.enabled or step == self.pruned_step:
            return
        self.pruned_step = step  # micro-batches of the same step come by here too
        if self.schedule.due(step, self.max_steps):
            self.masks.replace(self.masks_at(step, trainer, pl_module))
            for average in _averages(trainer):
                self.masks.of(self.targets.weights(average)).zero_()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        """Before gradients are clipped by their norm: what is pruned has none."""
        if self.enabled:
            self.masks.zero_gradients_()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log where the step is logged."""
        if self.enabled and trainer.global_step % trainer.log_every_n_steps == 0:
            pl_module.log("pruning/sparsity", self.masks.sparsity)

    def state_dict(self) -> dict[str, Any]:
        """Masks of a bit per weight; loads with `weights_only`."""
        if not self.enabled:
            return {}
        return {"masks": self.masks.state_dict(), "pruned_step": self.pruned_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember them; the matrices are not chosen yet."""
        self._restored = state_dict["masks"]
        self.pruned_step = state_dict["pruned_step"]


class MagnitudePruning(Pruning):
    """Prunes the smallest weights, more of them from step to step (arXiv:1710.01878).

    What is pruned is zero after every step, has no gradient, and stays pruned: in checkpoints, on
    resume, and in averages of weights. Logs `pruning/sparsity`.

    Args:
        schedule: The share that is pruned, and when.
        targets: The matrices. Default: those of attention and feed-forward.
        scope: Whether the share is of all matrices together, of each, or of each row of each.
        pattern: N:M, such as 2:4: keep N of every M weights of a row. Wants a schedule of shape
            one_shot whose final share is the pattern's.
        rewind_to: Lottery tickets (arXiv:1803.03635): at each pruning all weights that are kept
            return to what they were at this step, and the optimizer forgets.
        enabled: False prunes nothing.
    """

    def __init__(
        self,
        schedule: SparsitySchedule | None = None,
        targets: Targets | None = None,
        scope: Scope = "global",
        pattern: str | None = None,
        rewind_to: int | None = None,
        enabled: bool = True,
    ) -> None:
        parsed = None if pattern is None else Pattern.parse(pattern)
        super().__init__(schedule or SparsitySchedule(), targets, parsed, enabled)
        if parsed is not None:
            parsed.require_schedule(self.schedule)
        self.scope: Scope = scope
        self.rewind_to = rewind_to
        self._early: dict[str, Tensor] = {}

    def masks_at(self, step: int, trainer: Trainer, pl_module: Any) -> dict[str, Tensor]:
        """Keep the largest weights; then they may return to what they once were."""
        weights = self.masks.weights
        if self.pattern is not None:
            kept = {name: self.pattern.mask(weight.abs()) for name, weight in weights.items()}
        else:
            sparsity = self.schedule.sparsity(step, self.max_steps)
            kept = magnitude_masks(weights, sparsity, self.scope)
        if self.rewind_to is not None:
            self._rewind(trainer, pl_module.transformer)
        return kept

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Refuse a step to return to that comes too late."""
        super().on_train_start(trainer, pl_module)
        if not self.enabled or self.rewind_to is None:
            return
        begin, _ = self.schedule.window(self.max_steps)
        if not 0 <= self.rewind_to < begin:
            raise ValueError(
                f"rewind_to ({self.rewind_to}) must be a step before the first pruning ({begin}); "
                "lower it or raise schedule.begin"
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember the weights to return to."""
        if self.enabled and self.pruned_step < trainer.global_step == self.rewind_to:
            weights = pl_module.transformer.named_parameters()
            self._early = {name: weight.detach().clone() for name, weight in weights}
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    def state_dict(self) -> dict[str, Any]:
        """The weights to return to as well."""
        state = super().state_dict()
        return state | {"early": self._early} if state else state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them over."""
        super().load_state_dict(state_dict)
        self._early = state_dict["early"]

    @torch.no_grad()
    def _rewind(self, trainer: Any, network: nn.Module) -> None:
        for name, weight in network.named_parameters():
            weight.copy_(self._early[name])
        for optimizer in trainer.optimizers:
            optimizer.state.clear()


def _averages(trainer: Any) -> Iterator[Any]:
    """The networks in which Lightning's callbacks average the weights."""
    for callback in trainer.callbacks:
        if isinstance(callback, WeightAveraging) and callback._average_model is not None:
            yield callback._average_model.module.transformer
