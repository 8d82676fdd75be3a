"""The base of every task: one Transformer, its optimizer, and a loss weighted by tokens."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from gpt4o_lit.interop.pretrained import Pretrained, with_dropout
from gpt4o_lit.model import Transformer, TransformerConfig
from gpt4o_lit.model.low_rank import merged_state, require_same_adapters
from gpt4o_lit.objectives import Readout, Teacher, VocabularyPart
from gpt4o_lit.objectives.chunks import WHOLE
from gpt4o_lit.optim import AdamW, OptimizerRecipe, Schedule, WarmupCosine, refresh_row_parts
from gpt4o_lit.strategies import DeepSpeed, TensorParallel, data_place
from gpt4o_lit.strategies.compile import compile_
from gpt4o_lit.tasks.gradients import Window, scale_and_clip_

NO_STACKS = TransformerConfig()


class Task(LightningModule, ABC):
    """Holds the network at `transformer`, built in `configure_model` when the vocabulary is known.

    A subclass gives `training_step` through `weighted_loss`: the *sum* of the losses of its targets
    and their number. The gradient is the mean over every target of the accumulation window on all
    ranks, whatever the lengths of the micro-batches (Lightning averages their means).
    """

    transformer: Transformer
    teacher: Teacher | None = None
    """Whom `training_step` asks beside the targets, where it asks any; a callback sets it."""
    guard: Callable[[float, float, float], bool] | None = None
    """Whether to step, by the loss of all processes, that of this one, and the gradient's norm; a
    callback sets it."""
    cut_from: TransformerConfig | None = None
    """What the network was before it was cut, if it was: what the run's config builds."""

    def __init__(
        self,
        transformer: TransformerConfig = NO_STACKS,
        optimizer: OptimizerRecipe | None = None,
        schedule: Schedule | None = None,
        compile: bool = False,
        pretrained: str | None = None,
        dropout: float | None = None,
    ) -> None:
        super().__init__()
        self.pretrained = None if pretrained is None else Pretrained.read(pretrained)
        self.transformer_config = _config(transformer, self.pretrained, dropout)
        self.optimizer_recipe = optimizer or AdamW(lr=1e-3)
        self.schedule = schedule or WarmupCosine()
        self.compile_network = compile
        self.amendments: list[Callable[[Transformer], None]] = []
        """What callbacks add to the network once it has its weights, before it is compiled."""
        self._window = Window()
        self._running = torch.zeros(2, dtype=torch.float64)
        self._logged_step = 0
        self._knows_its_part = False

    @staticmethod
    def _share(name: str, value: float) -> float:
        """The value of an option that is a share and not all."""
        if not 0 <= value < 1:
            raise ValueError(f"{name} ({value}) must be at least 0 and below 1; set it to 0.1")
        return value

    @property
    def datamodule(self) -> Any:
        """The data module of the run; it has the tokenizer."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def configure_model(self) -> None:
        """Build the network once; Lightning calls this again for validation and test."""
        if hasattr(self, "transformer"):
            return
        self.transformer_config = config = self._completed(self.transformer_config)
        self.transformer = Transformer(config)
        if self.pretrained is not None and self.trainer.ckpt_path is None:
            self.pretrained.fill_(self.transformer)
        self._finish_network()

    def _finish_network(self) -> None:
        for amend in self.amendments:
            amend(self.transformer)
        if self.compile_network:
            compile_(self.transformer)

    def _completed(self, config: TransformerConfig) -> TransformerConfig:
        """The config with what the data says: as many pieces as its tokenizer has, no classes."""
        config = replace(config, num_classes=None)
        tokenizer = self.datamodule.tokenizer
        pieces = tokenizer.vocab_size
        if self.pretrained is not None:
            self.pretrained.require_tokenizer(tokenizer.fingerprint)
            return replace(config, vocab_size=max(pieces, config.vocab_size or 0))
        if config.vocab_size is None:
            return replace(config, vocab_size=pieces)
        if config.vocab_size < pieces:
            raise ValueError(
                f"transformer.vocab_size ({config.vocab_size}) must be at least the tokenizer's "
                f"{pieces} pieces; leave vocab_size out to take the tokenizer's"
            )
        return config

    def known_config(self) -> TransformerConfig:
        """What is known of the network before the data is prepared: a tokenizer that is trained may
        say how many pieces it will have."""
        recipe = getattr(self.datamodule, "tokenizer_recipe", None)
        pieces = self.transformer_config.vocab_size or getattr(recipe, "vocab_size", None)
        if pieces is None and recipe is not None and not recipe.sample_bytes:
            pieces = recipe.build(()).vocab_size
        return replace(self.transformer_config, vocab_size=pieces)

    @property
    def vocabulary_part(self) -> VocabularyPart:
        """Of which pieces this process makes the logits; for whoever reads the output matrix."""
        self._knows_its_part = True
        sharing, of_classes = self._sharing, self.transformer.config.num_classes is not None
        if sharing is None or of_classes:
            return WHOLE
        return VocabularyPart(sharing.group_rank, sharing.group_size, sharing.group)

    @property
    def _sharing(self) -> TensorParallel | None:
        """The strategy, where processes share the network."""
        strategy = self.trainer.strategy
        return strategy if isinstance(strategy, TensorParallel) else None

    def on_network_cut(self, cut_from: TransformerConfig) -> None:
        """Finish what the network is made of now, group its weights, remember what it was."""
        self.cut_from = cut_from
        self._finish_network()
        for optimizer in self.trainer.optimizers:
            refresh_row_parts(optimizer, self.transformer)

    def configure_optimizers(self) -> Any:
        """One optimizer; the schedule counts steps."""
        optimizer = self.optimizer_recipe.build(self.transformer)
        self._group_settings = [
            {name: value for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]
        max_steps = self.max_steps
        scheduler = LambdaLR(optimizer, lambda step: self.schedule(step, max_steps))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    @property
    def max_steps(self) -> int:
        """Optimizer steps of the whole run, counted without building a loader.

        `trainer.estimated_stepping_batches` builds the loaders early and loses a restored position.
        """
        limits = []
        if self.trainer.max_steps != -1:
            limits.append(self.trainer.max_steps)
        if self.trainer.max_epochs not in (None, -1):
            batches = self.datamodule.batches_per_epoch
            per_epoch = math.ceil(batches / self.trainer.accumulate_grad_batches)
            limits.append(per_epoch * int(self.trainer.max_epochs or 0))
        if not limits:
            raise ValueError(
                "the schedule needs an end; set trainer.max_steps or trainer.max_epochs"
            )
        return min(limits)

    def on_train_start(self) -> None:
        """Config and flags outrank the optimizer settings of the checkpoint one goes on from."""
        self._logged_step = self.global_step
        self._require_whole_steps()
        if self.trainer.ckpt_path is None:
            return
        (optimizer,), scheduler = self.trainer.optimizers, self.lr_schedulers()
        assert isinstance(scheduler, LambdaLR)
        scheduler.base_lrs = [settings["lr"] for settings in self._group_settings]
        factor = self.schedule(scheduler.last_epoch, self.max_steps)
        for group, settings in zip(optimizer.param_groups, self._group_settings, strict=True):
            group |= settings
            group["initial_lr"], group["lr"] = settings["lr"], settings["lr"] * factor

    def _require_whole_steps(self) -> None:
        """A checkpoint in the middle of an accumulation window would lose half a step."""
        trainer: Any = self.trainer
        interval, window = trainer.val_check_batch, trainer.accumulate_grad_batches
        within = trainer.check_val_every_n_epoch is None or interval < trainer.num_training_batches
        if within and math.isfinite(interval) and interval % window:
            raise ValueError(
                f"trainer.val_check_interval ({interval} batches) must be a multiple of "
                f"accumulate_grad_batches ({window}), for a run cannot go on from half a step; "
                f"set it to {math.ceil(interval / window) * window}"
            )

    def weighted_loss(self, loss_sum: Tensor, num_targets: Tensor) -> Tensor:
        """Turn a sum over targets into what `backward` is called on, and remember the weight.

        With one micro-batch on one process this is the plain mean. Otherwise each micro-batch is
        divided by a constant, and `configure_gradient_clipping` puts the window right.
        """
        self._window.add(loss_sum, num_targets)
        if self._is_plain:
            return loss_sum / num_targets.clamp(min=1)
        return loss_sum / (self._reference * self._copies)

    @property
    def _copies(self) -> int:
        """Processes that work out the same loss, and not each a part of it."""
        if self._sharing is None:
            return 1
        if not self._knows_its_part and self.transformer.config.num_classes is None:
            raise ValueError(
                f"{type(self).__name__} reads parts of logits as if they were all; give its loss "
                "part=self.vocabulary_part, or take --config with/fsdp2"
            )
        return self._sharing.group_size // self.vocabulary_part.size

    @property
    def _is_plain(self) -> bool:
        return self.trainer.accumulate_grad_batches == 1 and self.trainer.world_size == 1

    @property
    def _reference(self) -> float:
        """A constant near the targets of a micro-batch; it keeps low precision in range."""
        return float(self.datamodule.tokens_per_batch)

    @abstractmethod
    def work(self, batch: Any) -> tuple[int, float]:
        """Tokens of a training batch, padding left out, and the FLOPs of training on them."""

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Weight the window by its targets and clip by norm, in one pass over the gradients.

        Where the guard says no, the optimizer finds no gradients, and leaves weights and its own
        state alone.
        """
        if gradient_clip_algorithm not in (None, "norm"):
            raise ValueError(
                f"gradient_clip_algorithm ({gradient_clip_algorithm}) must be norm; leave it out"
            )
        scale, window, own = *self._weigh_window(), self._window.own
        self._window = Window()
        sharing = self._sharing
        if sharing is not None:
            sharing.add_up_gradients(self.transformer)
        is_watched = self.guard is not None or self.logs_this_step
        if isinstance(self.trainer.strategy, DeepSpeed):  # whose step clips, and knows the norm
            self.trainer.strategy.weigh_gradients(scale)
        elif is_watched or scale != 1.0 or gradient_clip_val is not None:
            loss_scale = self._loss_scale(optimizer)
            max_norm = None if gradient_clip_val is None else gradient_clip_val * loss_scale
            total = None if sharing is None else sharing.sum_over_group
            norm = scale_and_clip_(self.transformer.parameters(), scale, max_norm, total)
            norm = norm / loss_scale
            if self.guard is not None and not self._may_step(self.guard, window, own, norm):
                optimizer.zero_grad()
                return
            if self.logs_this_step:
                self.log("train/grad_norm", norm)
        self._running = self._running.to(own.device) + own

    def gradient_weight(self, optimizer: torch.optim.Optimizer) -> float:
        """What gradients are to be multiplied by before they are clipped, for each target of the
        window to weigh the same and a loss scale to be gone; every process asks, or none."""
        return self._weigh_window()[0] / self._loss_scale(optimizer)

    def _weigh_window(self) -> tuple[float, Tensor]:
        """What puts the window's gradients right, and its sums over all processes."""
        if self._is_plain:
            return 1.0, self._window.own
        window = self._window.of_all(self.trainer.strategy.reduce, self.device)
        factor = self.trainer.accumulate_grad_batches * self.trainer.world_size
        return self._reference * factor / max(float(window[1]), 1.0), window

    @staticmethod
    def _may_step(guard: Any, window: Tensor, own: Tensor, norm: Tensor) -> bool:
        sums = torch.stack([window, own])
        means = sums[:, 0] / sums[:, 1].clamp(min=1)
        return guard(*torch.cat([means, norm.to(means).view(1)]).tolist())  # read at once

    def _loss_scale(self, optimizer: torch.optim.Optimizer) -> float:
        """What gradients are still multiplied with: fused optimizers unscale them in their step."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        unscales = getattr(optimizer, "_step_supports_amp_scaling", False)
        return 1.0 if scaler is None or not unscales else scaler.get_scale()

    @property
    def logs_this_step(self) -> bool:
        """Whether the step that is under way is written to the loggers."""
        return self._logs(self.global_step + 1)

    def _logs(self, step: int) -> bool:
        """The last one too, at which Lightning writes what it has, however old."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return step % every == 0 or step == self.trainer.max_steps

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the loss over all targets since the last time; other steps read no value."""
        if self.global_step == self._logged_step or not self._logs(self.global_step):
            return
        self._logged_step = self.global_step  # micro-batches that do not step come by here too
        loss_sum, targets = self.trainer.strategy.reduce(self._running, reduce_op="sum").tolist()
        if targets:
            self.log("train/loss", loss_sum / targets, prog_bar=True)
            self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])
            self._running.zero_()
        if isinstance(self.trainer.strategy, DeepSpeed):  # which knows it after the step
            self.log("train/grad_norm", self.trainer.strategy.grad_norm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the network's own description beside its weights, as plain data, and what of the
        losses of each process is not logged yet."""
        running = torch.as_tensor(self.all_gather(self._running.to(self.device)))
        copies = self.trainer.world_size // data_place(self.trainer)[1]
        checkpoint["losses_to_log"] = running.reshape(-1, 2)[::copies].cpu()
        checkpoint["transformer_config"] = self.transformer.config.to_dict()
        checkpoint["tokenizer_fingerprint"] = self.datamodule.tokenizer.fingerprint
        if self.cut_from is not None:
            checkpoint["cut_from"] = self.cut_from.to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights that were learned on other pieces; be as small as they are, if cut.

        What is only measured has adapters of low rank added to its weights, as whoever opens the
        run has them.

        Raises:
            ValueError: the data's tokenizer is not the one of the checkpoint, its weights were
                trained as if they were rounded and now would not be, or adapters are others.
        """
        if checkpoint["tokenizer_fingerprint"] != self.datamodule.tokenizer.fingerprint:
            raise ValueError(
                "the data's tokenizer has changed since the checkpoint was written (its text or "
                "settings have), and the weights mean nothing to other pieces; put the text back, "
                "or give data.init_args.tokenizer the run's own: class_path "
                "gpt4o_lit.tokenizer.LoadTokenizer, init_args.path RUN"
            )
        rounds = any(name.endswith(".fake") for name, _ in self.transformer.named_modules())
        if checkpoint.get("trained_as") and not rounds:
            layer, format = next(iter(checkpoint["trained_as"].items()))
            raise ValueError(
                f"{layer} was trained as if it had {format['bits']} bits, but nothing rounds it "
                "here; put the callback gpt4o_lit.callbacks.QuantizationAwareTraining back"
            )
        if self.trainer.state.fn == "fit":
            self._take_losses_to_log(checkpoint.get("losses_to_log", torch.zeros(1, 2)))
            require_same_adapters(self.transformer, checkpoint.get("low_rank"))
        elif "low_rank" in checkpoint:
            state, adapters = checkpoint["state_dict"], checkpoint["low_rank"]
            checkpoint["state_dict"] = merged_state(state, adapters, "transformer.")
        if checkpoint.get("cut_from") == self.transformer.config.to_dict():
            self.cut_from = self.transformer.config
            config = TransformerConfig.from_dict(checkpoint["transformer_config"])
            self.transformer = Transformer(config)
            self._finish_network()

    def _take_losses_to_log(self, by_rank: Tensor) -> None:
        """Each process its own; where there are now more or fewer, the first one has all."""
        rank, processes = data_place(self.trainer)
        if len(by_rank) == processes:
            self._running = by_rank[rank].double()
        elif rank == 0:
            self._running = by_rank.double().sum(0)


def _config(
    transformer: TransformerConfig, pretrained: Pretrained | None, dropout: float | None
) -> TransformerConfig:
    if pretrained is not None:
        if transformer.has_stacks:
            raise ValueError("transformer and pretrained are both given; leave one out")
        return with_dropout(pretrained.config, dropout)
    if not transformer.has_stacks:
        raise ValueError(
            "transformer has neither encoder nor decoder; give encoder, decoder or both, or "
            "pretrained: the directory of a run"
        )
    if dropout is not None:
        raise ValueError("dropout is for a pretrained network; set it in transformer's stacks")
    return transformer


def readout_of(network: Transformer, features: Tensor) -> Readout:
    """What the logits are made of where the head has made these features of hidden states."""
    head = network.head
    return Readout(features=features, weight=head.matrix(), bias=head.bias, softcap=head.softcap)
