"""Which tag each word of a sentence has."""

from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from gpt4o_lit.model import TransformerConfig, training_flops
from gpt4o_lit.objectives import Example
from gpt4o_lit.optim import OptimizerRecipe, Schedule
from gpt4o_lit.tasks.task import NO_STACKS
from gpt4o_lit.tasks.token_prediction import Batch, TokenPrediction


class TokenClassification(TokenPrediction):
    """Learn the tag of each word, read at its first piece.

    Args:
        transformer: The network: an encoder, or a decoder, which sees no word behind.
        label_smoothing: Share of each target that is spread over all tags (arXiv:1512.00567).
        optimizer: Default: AdamW at a learning rate of 1e-3.
        schedule: Factor of the learning rate per step. Default: warm-up, then cosine.
        compile: Compile the stacks of the network; checkpoint keys stay as they are.
        pretrained: In place of transformer: a run's directory, from `fit` or `import`, whose
            network and weights are gone on from, with a head of its own. The data takes the run's
            tokenizer.
        dropout: With pretrained: of every stack, in place of the run's.
    """

    says_text = False

    def __init__(
        self,
        transformer: TransformerConfig = NO_STACKS,
        label_smoothing: float = 0.0,
        optimizer: OptimizerRecipe | None = None,
        schedule: Schedule | None = None,
        compile: bool = False,
        pretrained: str | None = None,
        dropout: float | None = None,
    ) -> None:
        super().__init__(transformer, optimizer, schedule, compile, pretrained, dropout)
        if self.transformer_config.kind == "encoder_decoder":
            raise ValueError(
                "TokenClassification reads a sentence with one stack, but the config gives encoder "
                "and decoder; leave one out"
            )
        self.label_smoothing = self._share("label_smoothing", label_smoothing)

    def setup(self, stage: str) -> None:
        """Refuse sentences that are longer than the network reads."""
        super().setup(stage)
        longest, most = self.datamodule.longest_row, self.transformer_config.max_seq_len
        if longest > most:
            raise ValueError(
                f"tagged.max_len ({longest}) must be at most transformer.max_seq_len ({most}); "
                "lower max_len or raise max_seq_len"
            )

    def example(self, batch: Batch, batch_idx: int, *, training: bool) -> Example:
        """The padded sentences as they come."""
        return Example(
            tokens=batch["tokens"], targets=batch["targets"], documents=batch["documents"]
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Add this batch to the sums; give the likeliest tag at each piece (B, T), and targets."""
        features = self._judge(self.example(batch, batch_idx, training=False))
        head, targets_BT = self.transformer.head, batch["targets"]
        scores = F.linear(features, head.matrix(), head.bias)
        return {"tags": scores.argmax(-1).view(targets_BT.shape), "targets": targets_BT}

    test_step = validation_step

    def work(self, batch: Batch) -> tuple[int, float]:
        """Pieces without padding, and the FLOPs of sentences of mean length."""
        rows, pieces = len(batch["tokens"]), batch["source_len"]
        flops = training_flops(
            self.transformer.config, target=round(pieces / rows), asked=batch["target_len"] / rows
        )
        return pieces, rows * flops

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the names of the tags."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["classification"] = {"classes": self.datamodule.classes, "pool": "each"}

    def _completed(self, config: TransformerConfig) -> TransformerConfig:
        return replace(super()._completed(config), num_classes=len(self.datamodule.classes))
