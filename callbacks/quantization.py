"""Quantization: of a trained network, and training that already feels it."""

from dataclasses import asdict
from functools import partial
from typing import Any, ClassVar

from lightning import Callback, Trainer
from tqdm import tqdm

from gpt4o_lit.callbacks.calibration import calibrating, require_batches
from gpt4o_lit.callbacks.combining import Refused, require_combinable
from gpt4o_lit.callbacks.structured_pruning import StructuredPruning
from gpt4o_lit.compression import FakeQuantization, Formats, Reductions, quantize_
from gpt4o_lit.compression.fake import Scales
from gpt4o_lit.compression.post_training import RoundingMethod
from gpt4o_lit.model import Transformer
from gpt4o_lit.model.quantized import formats_of


class QuantizationAwareTraining(Callback):
    """Trains a network as if its weights were stored as small whole numbers (arXiv:1712.05877).

    The forward sees rounded weights, and rounded inputs where the format has it; gradients go
    straight through. Checkpoints keep the exact weights; whoever opens the run, and
    `RUN/compressed`, has the whole numbers. StructuredPruning can be with it where scales are
    neither learned nor frozen.

    Args:
        formats: Which weights, and how many bits.
        start: Step from which weights are rounded; below 1 a share of all steps.
        freeze: Step from which scales stay as they are; below 1 a share. Default: never.
        learned_scales: Scales are parameters (LSQ, arXiv:1902.08153); else they follow from the
            weights.
        enabled: False does nothing.
    """

    needs_whole_layers: ClassVar[bool] = True
    needs_whole_weights: bool = False

    def __init__(
        self,
        formats: Formats | None = None,
        start: float = 0,
        freeze: float | None = None,
        learned_scales: bool = False,
        enabled: bool = True,
    ) -> None:
        if start < 0:
            raise ValueError(f"start ({start}) must not be negative; set it to 0")
        if freeze is not None and freeze < start:
            raise ValueError(
                f"freeze ({freeze}) must not be before start ({start}); raise it or leave it out"
            )
        self.formats = formats or Formats()
        self.start, self.freeze, self.enabled = start, freeze, enabled
        self.scales: Scales = "of_weight"
        if learned_scales or freeze is not None:
            self.scales = "learned" if learned_scales else "frozen"
        self.needs_whole_weights = self.scales != "of_weight"
        self._started = self._frozen = False

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Have the network prepared as soon as it is built."""
        if self.enabled:
            pl_module.amendments.append(self._prepare)

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Refuse what would change shapes under scales that are kept."""
        for other in trainer.callbacks:  # type: ignore[attr-defined]
            cuts = isinstance(other, StructuredPruning) and other.enabled
            if self.enabled and cuts and self.scales != "of_weight":
                raise ValueError(
                    "StructuredPruning changes the shapes of weights, whose scales "
                    "QuantizationAwareTraining keeps; leave learned_scales and freeze out"
                )

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Place start and freeze among the steps of the run."""
        if not self.enabled:
            return
        if self.scales == "learned" and self.start and trainer.world_size > 1:
            raise ValueError(
                f"start ({self.start}) leaves learned_scales without gradients at first, which "
                "several processes wait for; set start to 0"
            )
        steps: int = pl_module.max_steps
        self._start = round(self.start * steps) if self.start < 1 else round(self.start)
        self._freeze = steps
        if self.freeze is not None:
            self._freeze = round(self.freeze * steps) if self.freeze < 1 else round(self.freeze)
        for name, value in (("start", self._start), ("freeze", self._freeze)):
            if value > steps or (name == "start" and value == steps):
                raise ValueError(
                    f"{name} (step {value}) must come before the run's end (step {steps}); lower "
                    "it, or raise trainer.max_steps"
                )
        self._turn(pl_module.transformer, self._started, self._frozen)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start and freeze when it is time."""
        if not self.enabled:
            return
        now = trainer.global_step >= self._start, trainer.global_step >= self._freeze
        if now != (self._started, self._frozen):
            self._turn(pl_module.transformer, *now)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: Any) -> None:
        """Say how the weights are rounded, for whoever opens the run."""
        if self._started:
            formats = self.formats.of(pl_module.transformer)
            checkpoint["trained_as"] = {name: asdict(each) for name, each in formats.items()}

    def state_dict(self) -> dict[str, Any]:
        """Whether it has started and frozen."""
        return {"started": self._started, "frozen": self._frozen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it over."""
        self._started, self._frozen = state_dict["started"], state_dict["frozen"]

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Measure a checkpoint as it was trained."""
        if self.enabled and trainer.state.fn != "fit":
            self._turn(pl_module.transformer, self._started, self._frozen)

    on_test_start = on_predict_start = on_validation_start

    def _prepare(self, network: Transformer) -> None:
        """Put what rounds beside each weight; a tied head shares its embedding's."""
        for name, format in self.formats.of(network).items():
            layer: Any = network.get_submodule(name)
            fake = FakeQuantization(format, layer.weight, self.scales)
            fake.active = self._started
            layer.fake = fake
        head: Any = network.head
        if head.weight is network.tokens.weight and network.tokens.fake is not None:
            head.fake = network.tokens.fake

    def _turn(self, network: Transformer, started: bool, frozen: bool) -> None:
        """Let rounding be as it is from some step on."""
        for name in self.formats.of(network):
            layer: Any = network.get_submodule(name)
            layer.fake.active = started
            starts, freezes = started and not self._started, frozen and not self._frozen
            if (self.scales == "learned" and starts) or (self.scales == "frozen" and freezes):
                layer.fake.follow_(layer.weight)
            if frozen:
                layer.fake.freeze_()
        self._started, self._frozen = started, frozen


class PostTrainingQuantization(Callback):
    """Stores the weights of a trained network as small whole numbers.

    With `validate` it does so first, so that what is measured is the quantized network. With `fit`
    it waits for the end, and takes the best checkpoint for `RUN/compressed`.

    Args:
        formats: Which weights, and how many bits.
        method: nearest; gptq (arXiv:2210.17323) and awq (arXiv:2306.00978) round so that a layer
            gives nearly what it gave; smooth (arXiv:2211.10438) makes inputs easier to round.
        num_batches: Training batches that each process looks at; nearest looks at none.
        enabled: False does nothing.
    """

    needs_whole_weights: ClassVar[bool] = True
    refuses: ClassVar[Refused] = {
        QuantizationAwareTraining: "says already how weights are stored; take "
        "PostTrainingQuantization out"
    }

    def __init__(
        self,
        formats: Formats | None = None,
        method: RoundingMethod = "nearest",
        num_batches: int = 16,
        enabled: bool = True,
    ) -> None:
        self.formats = formats or Formats()
        self.method: RoundingMethod = method
        self.num_batches, self.enabled = num_batches, enabled

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Refuse what cannot be quantized, before training."""
        if not self.enabled:
            return
        require_combinable(self, trainer)
        self.formats.of(pl_module.transformer)
        self._require_batches(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Quantize what is about to be measured, unless it is still being trained."""
        if self.enabled and trainer.state.fn == "validate":
            self.quantize(trainer, pl_module)

    def quantize(self, trainer: Trainer, pl_module: Any) -> None:
        """Quantize the network of a task, calibrated on batches of the training data."""
        network = pl_module.transformer
        formats = self.formats.of(network)
        if formats_of(network):
            raise ValueError(
                "the network is quantized already; give a run that was trained without "
                "QuantizationAwareTraining"
            )
        self._require_batches(trainer)
        reduce = trainer.strategy.reduce
        reductions = Reductions(
            sum=partial(reduce, reduce_op="sum"), max=partial(reduce, reduce_op="max")
        )
        count = 0 if self.method == "nearest" else self.num_batches
        show = trainer.is_global_zero
        with (
            calibrating(trainer, pl_module, count) as forwards,
            tqdm(total=len(formats), desc="quantizing", leave=False, disable=not show) as bar,
        ):
            for done in quantize_(network, formats, forwards, self.method, reductions):
                bar.update(done)

    def _require_batches(self, trainer: Trainer) -> None:
        if self.method != "nearest":
            require_batches(trainer, self.num_batches)
