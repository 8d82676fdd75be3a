"""What tasks have in common that say pieces of text: their loss, and how it is judged."""

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from gpt4o_lit.model import Transformer
from gpt4o_lit.objectives import (
    Example,
    Readout,
    Teacher,
    linear_cross_entropy,
    token_statistics,
)
from gpt4o_lit.tasks.task import Task, readout_of

Batch = dict[str, Any]


class TokenPrediction(Task):
    """Learns by cross-entropy at the positions that are asked; a subclass gives `example`."""

    says_text: ClassVar[bool] = True
    """Whether targets are pieces of text, which have bytes, and not tags."""

    label_smoothing: float = 0.0
    """Share of each target that is spread over all pieces while training (arXiv:1512.00567)."""

    @abstractmethod
    def example(self, batch: Batch, batch_idx: int, *, training: bool) -> Example:
        """What the network reads and must say of a batch."""

    @property
    def mark_ids(self) -> tuple[int, ...]:
        """Targets that are no text, whose cost is not counted in bits per byte."""
        return ()

    def setup(self, stage: str) -> None:
        """Look up what each piece stands for."""
        self._token_bytes = torch.from_numpy(self.datamodule.tokenizer.token_bytes).long()
        self._sums = torch.zeros(5, dtype=torch.float64)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One micro-batch, weighed by its targets."""
        example = self.example(batch, batch_idx, training=True)
        if self.teacher is None:
            return self.weighted_loss(*self._loss_sum(example, self.label_smoothing))
        return self.weighted_loss(*self._taught_loss_sum(example, self.teacher))

    def sample_loss(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean loss of a batch, asked as in validation; it counts nowhere."""
        loss_sum, num_targets = self._loss_sum(self.example(batch, batch_idx, training=False))
        return loss_sum / num_targets.clamp(min=1)

    def on_validation_epoch_start(self) -> None:
        """Start the sums anew."""
        self._sums = torch.zeros(5, dtype=torch.float64, device=self.device)

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        """Add this batch to the sums: losses of all and of text, targets, right guesses, bytes."""
        self._judge(self.example(batch, batch_idx, training=False))

    test_step = validation_step

    def _judge(self, example: Example) -> Tensor:
        """Add an example to the sums; what the output matrix is applied to, (B T, D)."""
        features, targets = self._features(self.transformer, example)
        head = self.transformer.head
        nll, correct = token_statistics(
            features, head.matrix(), targets, bias=head.bias, softcap=head.softcap,
            part=self.vocabulary_part,
        )  # fmt: skip
        asked = targets != -100
        marks = torch.tensor(self.mark_ids, dtype=torch.long, device=targets.device)
        text = asked & ~torch.isin(targets, marks)
        num_bytes = torch.zeros((), device=targets.device)
        if self.says_text:
            num_bytes = self._token_bytes.to(targets.device)[targets[asked]].sum()
        losses = (nll[asked].double().sum(), nll[text].double().sum())
        counts = (asked.sum(), correct[asked].sum(), num_bytes)
        self._sums += torch.stack([*losses, *(count.double() for count in counts)])
        return features

    def on_validation_epoch_end(self) -> None:
        """Log what the sums over all ranks say."""
        self._log_quality("val")

    def on_test_epoch_end(self) -> None:
        """The same for the test split."""
        self._log_quality("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Targets (B, T), -100 where nothing is asked, and their negative log-likelihoods."""
        example = self.example(batch, batch_idx, training=False)
        features, targets = self._features(self.transformer, example)
        head = self.transformer.head
        nll, _ = token_statistics(
            features, head.matrix(), targets, bias=head.bias, softcap=head.softcap,
            part=self.vocabulary_part,
        )  # fmt: skip
        return {"targets": example.targets, "nll": nll.view(example.targets.shape)}

    def _features(self, network: Transformer, example: Example) -> tuple[Tensor, Tensor]:
        hidden_BTD = network.hidden(
            example.tokens,
            source_BS=example.source,
            documents_BT=example.documents,
            source_documents_BS=example.source_documents,
            prefix_BT=example.prefix,
        )
        return network.head.features(hidden_BTD).flatten(0, 1), example.targets.flatten()

    def _loss_sum(self, example: Example, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """Over all targets, and their number."""
        features, targets = self._features(self.transformer, example)
        head = self.transformer.head
        loss_sum = linear_cross_entropy(
            features,
            head.matrix(),
            targets,
            bias=head.bias,
            softcap=head.softcap,
            label_smoothing=label_smoothing,
            part=self.vocabulary_part,
        )
        return loss_sum, (targets != -100).sum()

    def _taught_loss_sum(self, example: Example, teacher: Teacher) -> tuple[Tensor, Tensor]:
        """The same, learned from a teacher too, which reads what the network reads."""
        student, targets = self._readout(self.transformer, example)
        with torch.no_grad():
            taught, _ = self._readout(teacher.network, example)
        smoothing = self.label_smoothing
        loss_sum = teacher.loss(student, taught, targets, label_smoothing=smoothing)
        return loss_sum, (targets != -100).sum()

    def _readout(self, network: Transformer, example: Example) -> tuple[Readout, Tensor]:
        features, targets = self._features(network, example)
        return readout_of(network, features), targets

    def _log_quality(self, split: str) -> None:
        sums = self.trainer.strategy.reduce(self._sums, reduce_op="sum")
        nll, text_nll, targets, correct, num_bytes = sums.tolist()
        if not targets:
            return
        loss = nll / targets
        self.log(f"{split}/loss", loss, prog_bar=True)
        self.log(f"{split}/accuracy", correct / targets)
        if self.says_text:
            self.log(f"{split}/perplexity", math.exp(min(loss, 700.0)))
        if num_bytes:
            self.log(f"{split}/bits_per_byte", text_nll / math.log(2) / num_bytes, prog_bar=True)
