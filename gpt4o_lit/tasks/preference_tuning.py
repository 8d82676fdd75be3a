"""Preferences: a network learns which answers are liked better (DPO)."""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from gpt4o_lit.model import Transformer, training_flops
from gpt4o_lit.objectives import (
    IGNORED,
    Readout,
    direct_preference_loss,
    row_log_likelihoods,
)
from gpt4o_lit.optim import OptimizerRecipe, Schedule
from gpt4o_lit.tasks.task import Task, readout_of

Batch = dict[str, Any]


class PreferenceTuning(Task):
    """Learn to prefer chosen answers to rejected ones, without leaving what the network was.

    Direct preference optimization (arXiv:2305.18290). The network that it was is in no checkpoint:
    a run that goes on opens it again.

    Args:
        pretrained: A decoder's run, whose network and weights are gone on from.
        beta: How dear it is to leave what the network was.
        label_smoothing: Share of the preferences that may be wrong (conservative DPO).
        optimizer: Default: AdamW at a learning rate of 1e-3; 1e-5 is usual here.
        schedule: Factor of the learning rate per step. Default: warm-up, then cosine.
        compile: Compile the stacks of the network; checkpoint keys stay as they are.
        dropout: Of every stack, in place of the run's.
    """

    needs_whole_vocabulary: ClassVar[bool] = True
    """Whether it reads the logits of all pieces on each process."""

    def __init__(
        self,
        pretrained: str,
        beta: float = 0.1,
        label_smoothing: float = 0.0,
        optimizer: OptimizerRecipe | None = None,
        schedule: Schedule | None = None,
        compile: bool = False,
        dropout: float | None = None,
    ) -> None:
        super().__init__(
            optimizer=optimizer, schedule=schedule, compile=compile, pretrained=pretrained,
            dropout=dropout,
        )  # fmt: skip
        if self.transformer_config.kind != "decoder":
            raise ValueError(
                f"PreferenceTuning needs a decoder, but {pretrained} is "
                f"{self.transformer_config.kind.replace('_', ' + ')}; give a decoder's run"
            )
        if beta <= 0:
            raise ValueError(f"beta ({beta}) must be above 0; set it to 0.1")
        self.beta, self.label_smoothing = beta, self._share("label_smoothing", label_smoothing)
        self._before: list[Transformer] = []  # in a list, so that it is no module of the task

    def setup(self, stage: str) -> None:
        """Refuse answers that are longer than the network reads."""
        longest, most = self.datamodule.longest_row, self.transformer_config.max_seq_len
        if longest > most:
            raise ValueError(
                f"preferences.max_len ({longest + 1}) must be at most transformer.max_seq_len "
                f"({most}) and 1; lower max_len"
            )
        self._sums = torch.zeros(4, dtype=torch.float64)

    def reference(self) -> Transformer:
        """What the network was, frozen, where the network is."""
        if not self._before:
            assert self.pretrained is not None
            with torch.random.fork_rng(devices=[]):  # its first weights are no draw of the run's
                network = Transformer(self.transformer.config)
            self.pretrained.fill_(network)
            self._before.append(network.eval().requires_grad_(False).to(self.device))
        return self._before[0]

    def readout(self, network: Transformer, batch: Batch) -> Readout:
        """What a network's logits of all answers are made of; its features are (2 B, T, D)."""
        return readout_of(network, network.head.features(network.hidden(batch["tokens"])))

    def losses(self, batch: Batch, policy: Readout | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Loss and margin of each preference, (B,), and whether it is asked."""
        with torch.no_grad():
            reference_2B = _log_likelihoods(self.readout(self.reference(), batch), batch)
        policy = policy or self.readout(self.transformer, batch)
        policy_2B = _log_likelihoods(policy, batch)
        loss_B, margin_B = direct_preference_loss(
            policy_2B, reference_2B, self.beta, self.label_smoothing
        )
        asked_B = (batch["targets"] != IGNORED).any(1).chunk(2)[0]
        return loss_B, margin_B, asked_B

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One micro-batch, weighted by its preferences."""
        policy = self.readout(self.transformer, batch)
        loss_B, _, asked_B = self.losses(batch, policy)
        loss_sum, asked = (loss_B * asked_B).sum(), asked_B.sum()
        if self.teacher is not None:
            share = self.teacher.lesson.share
            loss_sum = loss_sum * (1 - share) + share * asked * self._taught_loss(batch, policy)
        return self.weighted_loss(loss_sum, asked)

    def sample_loss(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean loss of a batch; it counts nowhere."""
        loss_B, _, asked_B = self.losses(batch)
        return (loss_B * asked_B).sum() / asked_B.sum().clamp(min=1)

    def on_validation_epoch_start(self) -> None:
        """Start the sums anew."""
        self._sums = torch.zeros(4, dtype=torch.float64, device=self.device)

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add losses, margins, and how often the chosen answer is preferred."""
        loss_B, margin_B, asked_B = self.losses(batch)
        parts = ((loss_B * asked_B), (margin_B * asked_B), ((margin_B > 0) & asked_B), asked_B)
        self._sums += torch.stack([part.double().sum() for part in parts])

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Log what the sums over all ranks say."""
        self._log_quality("val")

    def on_test_epoch_end(self) -> None:
        """The same for the test split."""
        self._log_quality("test")

    def work(self, batch: Batch) -> tuple[int, float]:
        """Pieces without padding, and the FLOPs of rows of mean length, read by both networks."""
        rows, pieces = len(batch["tokens"]), batch["source_len"]
        flops = training_flops(
            self.transformer.config, target=round(pieces / rows), asked=batch["target_len"] / rows
        )
        return pieces, rows * flops * 4 / 3  # a forward is a third of training

    def _taught_loss(self, batch: Batch, policy: Readout) -> Tensor:
        """The mean over all pieces that are answered of how unlike a teacher the network is."""
        assert self.teacher is not None
        with torch.no_grad():
            taught = self.readout(self.teacher.network, batch)
        student, taught = (
            replace(each, features=each.features.flatten(0, 1)) for each in (policy, taught)
        )
        targets_N = batch["targets"].flatten()
        loss_sum = self.teacher.loss(student, taught, targets_N, share=1.0)
        return loss_sum / (targets_N != IGNORED).sum().clamp(min=1)

    def _log_quality(self, split: str) -> None:
        sums = self.trainer.strategy.reduce(self._sums, reduce_op="sum")
        loss, margin, right, asked = sums.tolist()
        if asked:
            self.log(f"{split}/loss", loss / asked, prog_bar=True)
            self.log(f"{split}/accuracy", right / asked, prog_bar=True)
            self.log(f"{split}/margin", margin / asked)


def _log_likelihoods(readout: Readout, batch: Batch) -> Tensor:
    """Of the chosen answers, then of the rejected ones: (2 B,)."""
    return row_log_likelihoods(
        readout.features,
        readout.weight,
        batch["targets"],
        bias=readout.bias,
        softcap=readout.softcap,
    )
