"""Where the answer to a question stands in a text."""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt4o_lit.model import Transformer, TransformerConfig, token_types, training_flops
from gpt4o_lit.objectives import Teacher
from gpt4o_lit.optim import OptimizerRecipe, Schedule
from gpt4o_lit.tasks.task import NO_STACKS, Task

Batch = dict[str, Any]

# B windows, T pieces


class ExtractiveQA(Task):
    """Learn where an answer begins and ends; at bos where it is not in the window that is read.

    Args:
        transformer: The network: an encoder.
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
        optimizer: OptimizerRecipe | None = None,
        schedule: Schedule | None = None,
        compile: bool = False,
        pretrained: str | None = None,
        dropout: float | None = None,
    ) -> None:
        super().__init__(transformer, optimizer, schedule, compile, pretrained, dropout)
        if self.transformer_config.kind != "encoder":
            raise ValueError(
                "ExtractiveQA needs transformer: encoder, which sees a text both ways, but the "
                f"config gives {self.transformer_config.kind.replace('_', ' + ')}"
            )

    def setup(self, stage: str) -> None:
        """Refuse windows that are longer than the network reads."""
        longest, most = self.datamodule.longest_row, self.transformer_config.max_seq_len
        if longest > most:
            raise ValueError(
                f"spans.max_len ({longest}) must be at most transformer.max_seq_len ({most}); "
                "lower max_len or raise max_seq_len"
            )
        self._sums = torch.zeros(3, dtype=torch.float64)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One micro-batch, weighted by the places that are asked for."""
        if self.teacher is not None:
            return self.weighted_loss(*self._taught_loss_sum(batch, self.teacher))
        loss_sum, num_targets, _ = self._losses(batch)
        return self.weighted_loss(loss_sum, num_targets)

    def sample_loss(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean loss of a batch; it counts nowhere."""
        loss_sum, num_targets, _ = self._losses(batch)
        return loss_sum / num_targets.clamp(min=1)

    def on_validation_epoch_start(self) -> None:
        """Start the sums anew."""
        self._sums = torch.zeros(3, dtype=torch.float64, device=self.device)

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add losses, places and how many of them are found."""
        self._sums += torch.stack([part.double() for part in self._losses(batch)])

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Log what the sums over all ranks say."""
        self._log_quality("val")

    def on_test_epoch_end(self) -> None:
        """The same for the test split."""
        self._log_quality("test")

    def work(self, batch: Batch) -> tuple[int, float]:
        """Pieces without padding, and the FLOPs of windows of mean length."""
        rows, pieces = len(batch["tokens"]), batch["source_len"]
        length = round(pieces / rows)
        return pieces, rows * training_flops(self.transformer.config, target=length, asked=length)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what the two scores of a piece are, and whether a question may have no answer."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["classification"] = {
            "classes": ["begins", "ends"],
            "pool": "each",
            "unanswered": self.datamodule.unanswered,
        }

    def _completed(self, config: TransformerConfig) -> TransformerConfig:
        return replace(super()._completed(config), num_classes=2)

    def scores(self, network: Transformer, batch: Batch) -> Tensor:
        """Of each place as the begin and the end of the answer, (B, T, 2); -inf where none is."""
        tokens_BT = batch["tokens"]
        types_BT = token_types(network, tokens_BT, self.datamodule.tokenizer.eos_id)
        scores_BT2 = network(tokens_BT, documents_BT=batch["documents"], types_BT=types_BT)
        return scores_BT2.float().masked_fill(~batch["answers"][..., None], -float("inf"))

    def _taught_loss_sum(self, batch: Batch, teacher: Teacher) -> tuple[Tensor, Tensor]:
        """Over begins and ends, learned from a teacher's scores of the places too."""
        targets_B2 = batch["targets"]
        student_NT = self.scores(self.transformer, batch).transpose(1, 2).flatten(0, 1)
        with torch.no_grad():
            taught_NT = self.scores(teacher.network, batch).transpose(1, 2).flatten(0, 1)
        loss_sum = teacher.loss_of_logits(student_NT, taught_NT, targets_B2.flatten())
        return loss_sum, (targets_B2 >= 0).sum()

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Over begins and ends: the sum of the losses, their number, and those that are found."""
        scores_BT2, targets_B2 = self.scores(self.transformer, batch), batch["targets"]
        loss = F.cross_entropy(scores_BT2, targets_B2, reduction="sum")
        right = (scores_BT2.argmax(1) == targets_B2).sum()
        return loss, (targets_B2 >= 0).sum(), right

    def _log_quality(self, split: str) -> None:
        sums = self.trainer.strategy.reduce(self._sums, reduce_op="sum")
        loss, asked, right = sums.tolist()
        if asked:
            self.log(f"{split}/loss", loss / asked, prog_bar=True)
            self.log(f"{split}/accuracy", right / asked)
