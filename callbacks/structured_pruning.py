"""Cutting a network smaller while it trains."""

from functools import partial
from typing import Any, ClassVar

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from gpt4o_lit.callbacks.calibration import calibrating, require_batches
from gpt4o_lit.callbacks.combining import Refused, require_combinable
from gpt4o_lit.callbacks.pruning import Pruning
from gpt4o_lit.compression import Cut, choose, cut_, cut_state_, measure_importance, refit_
from gpt4o_lit.compression.importance import By
from gpt4o_lit.model import TransformerConfig


class StructuredPruning(Callback):
    """Takes out heads, channels, features and blocks that matter least; what is left is smaller.

    The weights have fewer elements from then on, in the network, the optimizer and the checkpoints,
    whose config says so. Logs `pruning/parameters`.

    Args:
        cut: What is taken out in all.
        at: Step before which the first part of it goes; below 1 a share of all steps.
        times: Parts in which it goes; the steps between them, and behind them, heal.
        every: Steps from one part to the next.
        importance: What matters: activation (arXiv:2407.14679), taylor (arXiv:1905.10650), or what
            others cannot make good for: reconstruction (arXiv:2302.04089). Blocks go by their
            influence (arXiv:2403.03853) either way.
        refit: Let what stays make good for the heads and channels that go (arXiv:2302.04089).
        num_batches: Training batches that each process looks at.
        enabled: False cuts nothing.
    """

    needs_whole_weights: ClassVar[bool] = True
    refuses: ClassVar[Refused] = dict.fromkeys(
        (Pruning, WeightAveraging),
        "relies on shapes that StructuredPruning changes; take one of them out, and go on from "
        "this run by pretrained in another",
    )

    def __init__(
        self,
        cut: Cut,
        at: float = 0,
        times: int = 1,
        every: int = 50,
        importance: By = "activation",
        refit: bool = True,
        num_batches: int = 8,
        enabled: bool = True,
    ) -> None:
        for name, value in (("times", times), ("every", every)):
            if value < 1:
                raise ValueError(f"{name} ({value}) must be at least 1; set it to 1")
        if at < 0:
            raise ValueError(f"at ({at}) must not be negative; set it to 0")
        self.cut, self.at, self.times, self.every = cut, at, times, every
        self.importance: By = importance
        self.refit = refit
        self.num_batches, self.enabled = num_batches, enabled
        self._done = 0
        self._dense: TransformerConfig | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Refuse what cannot be cut, before training."""
        if not self.enabled:
            return
        if self._dense is None:
            self._dense = pl_module.transformer.config
        assert self._dense is not None
        self.cut.require_fit(self._dense)
        require_batches(trainer, self.num_batches)
        self._require_alone(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Place the cuts among the steps of the run."""
        if not self.enabled:
            return
        max_steps: int = pl_module.max_steps
        first = round(self.at * max_steps) if self.at < 1 else round(self.at)
        self._steps = [first + part * self.every for part in range(self.times)]
        if self._steps[-1] >= max_steps:
            raise ValueError(
                f"the last cut (step {self._steps[-1]}) must come before the run's end (step "
                f"{max_steps}); lower at, times or every, or raise trainer.max_steps"
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Cut where it is time, once before a step."""
        if not self.enabled or self._done == self.times:
            return
        if trainer.global_step >= self._steps[self._done]:
            self._done += 1
            self._cut(trainer, pl_module, self.cut.at(self._done / self.times))

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log where the step is logged."""
        if self.enabled and trainer.global_step % trainer.log_every_n_steps == 0:
            count = sum(weight.numel() for weight in pl_module.transformer.parameters())
            pl_module.log("pruning/parameters", float(count))

    def state_dict(self) -> dict[str, Any]:
        """How far the cutting is, and from where; loads with `weights_only`."""
        if self._dense is None:
            return {}
        return {"done": self._done, "dense": self._dense.to_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._done = state_dict["done"]
        self._dense = TransformerConfig.from_dict(state_dict["dense"])

    def _cut(self, trainer: Any, task: Any, cut: Cut) -> None:
        network = task.transformer
        assert self._dense is not None
        add_up = partial(trainer.strategy.reduce, reduce_op="sum")
        with calibrating(trainer, task, self.num_batches) as losses:
            scores = measure_importance(network, losses, self.importance, add_up)
            kept = choose(scores, network.config, self._dense, cut)
            if self.refit:
                refit_(network, kept, losses, add_up)
        shapes = {weight: weight.shape for weight in network.parameters()}
        cuts = cut_(network, kept)
        for optimizer in trainer.optimizers:
            cut_state_(optimizer, cuts, shapes)
        task.on_network_cut(self._dense)
        if isinstance(trainer.strategy, DDPStrategy):  # its buckets have the old shapes
            trainer.strategy.model = task
            trainer.strategy.configure_ddp()

    def _require_alone(self, trainer: Any) -> None:
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            raise ValueError(
                f"StructuredPruning cuts whole weights, but {type(trainer.strategy).__name__} "
                "keeps parts of them; set trainer.strategy to auto or ddp"
            )
        require_combinable(self, trainer)
