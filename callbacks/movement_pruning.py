"""Pruning by scores that are learned while a network is fine-tuned."""

from typing import Any

from lightning import Trainer
from torch import Tensor

from gpt4o_lit.callbacks.pruning import Pruning
from gpt4o_lit.compression import MovementScores, SparsitySchedule, Targets, magnitude_masks
from gpt4o_lit.compression.magnitude import Scope


class MovementPruning(Pruning):
    """Prunes the weights that training moves towards zero, however large they are.

    Movement pruning (arXiv:2005.07683): better than magnitude where a pretrained network is tuned
    to a task and few weights are to be kept. Scores are learned from the first step on; what is
    pruned may come back at a later pruning.

    Args:
        schedule: The share that is pruned, and when.
        targets: The matrices. Default: those of attention and feed-forward.
        scope: Whether the share is of all matrices together, of each, or of each row of each.
        enabled: False prunes nothing.
    """

    def __init__(
        self,
        schedule: SparsitySchedule | None = None,
        targets: Targets | None = None,
        scope: Scope = "global",
        enabled: bool = True,
    ) -> None:
        super().__init__(schedule or SparsitySchedule(), targets, None, enabled)
        self.scope: Scope = scope
        self._restored_scores: dict[str, Any] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """A pruning before the first step, when nothing has been learned, is refused too."""
        super().on_fit_start(trainer, pl_module)
        if self.enabled:
            self.scores = MovementScores(self.masks.weights)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Go on with the scores of the checkpoint, if any."""
        super().on_train_start(trainer, pl_module)
        if not self.enabled:
            return
        begin, _ = self.schedule.window(self.max_steps)
        if begin == 0:
            raise ValueError(
                f"schedule.begin ({self.schedule.begin}) must be behind the first step, for scores "
                "are learned from step to step; set it to 0.1"
            )
        if self._restored_scores is not None:
            self.scores.load_state_dict(self._restored_scores)
            self._restored_scores = None

    def masks_at(self, step: int, trainer: Trainer, pl_module: Any) -> dict[str, Tensor]:
        """Keep what scores highest."""
        sparsity = self.schedule.sparsity(step, self.max_steps)
        kept = magnitude_masks(self.scores.scores, sparsity, self.scope, signed=True)
        self.scores.swap_(kept)
        return kept

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        """Learn from the gradients, those of pruned weights too, before these lose theirs."""
        if self.enabled:
            self.scores.learn_(pl_module.gradient_weight(optimizer))
        super().on_before_optimizer_step(trainer, pl_module, optimizer)

    def state_dict(self) -> dict[str, Any]:
        """The scores and what is pruned for the time being as well."""
        state = super().state_dict()
        return state | {"movement": self.scores.state_dict()} if state else state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember them; the matrices are not chosen yet."""
        super().load_state_dict(state_dict)
        self._restored_scores = state_dict["movement"]
