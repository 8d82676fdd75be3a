"""Which classes a text is of."""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt4o_lit.model import Transformer, TransformerConfig, training_flops
from gpt4o_lit.model.pool import Pool, class_scores, pooled
from gpt4o_lit.objectives import Readout, Teacher
from gpt4o_lit.optim import OptimizerRecipe, Schedule
from gpt4o_lit.tasks.task import NO_STACKS, Task, readout_of

Batch = dict[str, Any]

# B texts, T pieces, D dim, C classes


class Classification(Task):
    """Learn the class of a text, or of each class whether the text is of it.

    The head scores classes by what it reads of the text: the mean of its pieces' states, or the
    state of the first piece (bos, as BERT) or of the last (eos).

    Args:
        transformer: The network: an encoder or a decoder.
        pool: What the head reads. Default: mean for an encoder, last for a decoder.
        label_smoothing: Share of each target that is spread over all classes (arXiv:1512.00567).
        word_dropout: Share of the pieces that are hidden behind the mask while training
            (aclanthology.org/P15-1162).
        optimizer: Default: AdamW at a learning rate of 1e-3.
        schedule: Factor of the learning rate per step. Default: warm-up, then cosine.
        compile: Compile the stacks of the network; checkpoint keys stay as they are.
        pretrained: In place of transformer: a run's directory, from `fit` or `import`, whose
            network and weights are gone on from, with a head of its own. The data takes the run's
            tokenizer.
        dropout: With pretrained: of every stack, in place of the run's.
    """

    def __init__(
        self,
        transformer: TransformerConfig = NO_STACKS,
        pool: Pool | None = None,
        label_smoothing: float = 0.0,
        word_dropout: float = 0.0,
        optimizer: OptimizerRecipe | None = None,
        schedule: Schedule | None = None,
        compile: bool = False,
        pretrained: str | None = None,
        dropout: float | None = None,
    ) -> None:
        super().__init__(transformer, optimizer, schedule, compile, pretrained, dropout)
        if self.transformer_config.kind == "encoder_decoder":
            raise ValueError(
                "Classification reads a text with one stack, but the config gives encoder and "
                "decoder; leave one out"
            )
        is_encoder = self.transformer_config.decoder is None
        self.pool: Pool = pool or ("mean" if is_encoder else "last")
        self.label_smoothing = self._share("label_smoothing", label_smoothing)
        self.word_dropout = self._share("word_dropout", word_dropout)

    def setup(self, stage: str) -> None:
        """Refuse texts that are longer than the network reads."""
        longest, most = self.datamodule.longest_row, self.transformer_config.max_seq_len
        if longest > most:
            raise ValueError(
                f"labelled.max_len ({longest}) must be at most transformer.max_seq_len ({most}); "
                "lower max_len or raise max_seq_len"
            )
        self.multi_label: bool = self.datamodule.labelled.multi_label

    def logits(self, network: Transformer, batch: Batch) -> Tensor:
        """Scores of the classes: (B, C)."""
        eos_id = self.datamodule.tokenizer.eos_id
        return class_scores(network, batch["tokens"], batch["documents"], self.pool, eos_id)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One micro-batch, weighed by its texts, or with several classes by its decisions."""
        if self.word_dropout:
            batch = batch | {"tokens": self._some_hidden(batch["tokens"])}
        if self.teacher is not None:
            return self.weighted_loss(*self._taught_loss_sum(batch, self.teacher))
        logits_BC = self.logits(self.transformer, batch)
        return self.weighted_loss(
            *self._loss_sum(logits_BC, batch["targets"], self.label_smoothing)
        )

    def sample_loss(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean loss of a batch; it counts nowhere."""
        logits_BC = self.logits(self.transformer, batch)
        loss_sum, num_targets = self._loss_sum(logits_BC, batch["targets"])
        return loss_sum / num_targets.clamp(min=1)

    def on_validation_epoch_start(self) -> None:
        """Start the sums anew."""
        self._sums = torch.zeros(4, dtype=torch.float64, device=self.device)

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Add this batch to the sums; give probabilities (B, C) and targets of what is asked."""
        logits_BC, targets = self.logits(self.transformer, batch).float(), batch["targets"]
        loss_sum, num_targets = self._loss_sum(logits_BC, targets)
        if self.multi_label:
            logits_BC = logits_BC[: len(targets)]
            right = ((logits_BC > 0) == targets).all(1)
        else:
            asked = targets >= 0
            logits_BC, targets = logits_BC[asked], targets[asked]
            right = logits_BC.argmax(1) == targets
        counts = (num_targets, right.sum(), torch.tensor(len(right), device=targets.device))
        self._sums += torch.stack([loss_sum.double(), *(count.double() for count in counts)])
        return {"probabilities": self._probabilities(logits_BC), "targets": targets}

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Log what the sums over all ranks say."""
        self._log_quality("val")

    def on_test_epoch_end(self) -> None:
        """The same for the test split."""
        self._log_quality("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Probabilities of the classes (B, C), and the targets."""
        logits_BC = self.logits(self.transformer, batch).float()
        return {"probabilities": self._probabilities(logits_BC), "targets": batch["targets"]}

    def work(self, batch: Batch) -> tuple[int, float]:
        """Pieces of the texts without padding, and the FLOPs of texts of mean length."""
        rows, pieces = len(batch["tokens"]), batch["source_len"]
        flops = training_flops(self.transformer.config, target=round(pieces / rows), asked=1)
        return pieces, rows * flops

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the names of the classes, and how a text is read."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["classification"] = {
            "classes": self.datamodule.classes,
            "pool": self.pool,
            "multi_label": self.multi_label,
        }

    def _completed(self, config: TransformerConfig) -> TransformerConfig:
        return replace(super()._completed(config), num_classes=len(self.datamodule.classes))

    def _some_hidden(self, tokens_BT: Tensor) -> Tensor:
        """The mask in place of some pieces; special ones stay."""
        tokenizer = self.datamodule.tokenizer
        special = torch.tensor(tokenizer.special_ids, device=tokens_BT.device)
        drawn_BT = torch.rand(tokens_BT.shape, device=tokens_BT.device) < self.word_dropout
        hidden_BT = drawn_BT & ~torch.isin(tokens_BT, special)
        return tokens_BT.masked_fill(hidden_BT, tokenizer.mask_id)

    def _loss_sum(
        self, logits_BC: Tensor, targets: Tensor, label_smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Over all targets, and their number."""
        if not self.multi_label:
            loss = F.cross_entropy(
                logits_BC.float(), targets, reduction="sum", label_smoothing=label_smoothing
            )
            return loss, (targets >= 0).sum()
        wanted = targets.float() * (1 - label_smoothing) + label_smoothing / 2
        logits_BC = logits_BC[: len(targets)].float()
        loss = F.binary_cross_entropy_with_logits(logits_BC, wanted, reduction="sum")
        return loss, torch.tensor(targets.numel(), device=targets.device)

    def _taught_loss_sum(self, batch: Batch, teacher: Teacher) -> tuple[Tensor, Tensor]:
        """The same, learned from a teacher's scores of the classes too."""
        targets, smoothing = batch["targets"], self.label_smoothing
        if self.multi_label:
            student_NC = _decisions(self.logits(self.transformer, batch), targets)
            with torch.no_grad():
                taught_NC = _decisions(self.logits(teacher.network, batch), targets)
            targets_N = targets.flatten().long()
            loss_sum = teacher.loss_of_logits(
                student_NC, taught_NC, targets_N, label_smoothing=smoothing
            )
            return loss_sum, torch.tensor(targets.numel(), device=targets.device)
        student = self._readout(self.transformer, batch)
        with torch.no_grad():
            taught = self._readout(teacher.network, batch)
        loss_sum = teacher.loss(student, taught, targets, label_smoothing=smoothing)
        return loss_sum, (targets >= 0).sum()

    def _readout(self, network: Transformer, batch: Batch) -> Readout:
        eos_id = self.datamodule.tokenizer.eos_id
        read_BD = pooled(network, batch["tokens"], batch["documents"], self.pool, eos_id)
        return readout_of(network, network.head.features(read_BD))

    def _probabilities(self, logits_BC: Tensor) -> Tensor:
        return logits_BC.sigmoid() if self.multi_label else logits_BC.softmax(1)

    def _log_quality(self, split: str) -> None:
        sums = self.trainer.strategy.reduce(self._sums, reduce_op="sum")
        loss_sum, targets, right, texts = sums.tolist()
        if texts:
            self.log(f"{split}/loss", loss_sum / targets, prog_bar=True)
            self.log(f"{split}/accuracy", right / texts, prog_bar=True)


def _decisions(logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
    """Each class of each text that is asked as a choice of no and yes: (B C, 2)."""
    yes_N = logits_BC[: len(targets_BC)].flatten()
    return torch.stack([torch.zeros_like(yes_N), yes_N], dim=1)
