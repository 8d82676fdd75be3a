"""From one text to another: translation, summaries, answers, code."""

from typing import Any

from gpt4o_lit.model import TransformerConfig, training_flops
from gpt4o_lit.objectives import Example
from gpt4o_lit.optim import OptimizerRecipe, Schedule
from gpt4o_lit.tasks.task import NO_STACKS
from gpt4o_lit.tasks.token_prediction import Batch, TokenPrediction


class SequenceToSequence(TokenPrediction):
    """Learn to answer a source with its target.

    An encoder-decoder reads the source, eos behind it, in its encoder and says the target and eos.
    A decoder reads the source and goes on with the target and eos; the source itself is not asked.

    Args:
        transformer: The network: a decoder, or an encoder and a decoder.
        label_smoothing: Share of each target that is spread over all pieces (arXiv:1512.00567).
        optimizer: Default: AdamW at a learning rate of 1e-3.
        schedule: Factor of the learning rate per step. Default: warm-up, then cosine.
        compile: Compile the stacks of the network; checkpoint keys stay as they are.
        pretrained: In place of transformer: a run's directory, from `fit` or `import`, whose
            network and weights are gone on from. The data takes the run's tokenizer.
        dropout: With pretrained: of every stack, in place of the run's.
    """

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
        if self.transformer_config.decoder is None:
            raise ValueError(
                "transformer has no decoder to say the target; give decoder, with or without an "
                "encoder"
            )
        self.label_smoothing = self._share("label_smoothing", label_smoothing)

    @property
    def source_eos(self) -> bool:
        """Whether eos ends what is read before the target is written."""
        return self.transformer_config.encoder is not None

    def setup(self, stage: str) -> None:
        """Tell the data how the network reads it, and refuse what does not fit in."""
        super().setup(stage)
        config, data = self.transformer_config, self.datamodule
        data.joined = config.encoder is None
        if data.longest_row > config.max_seq_len:
            raise ValueError(
                f"pairs.max_source_len ({data.pairs.max_source_len}) and pairs.max_target_len "
                f"({data.pairs.max_target_len}) need a transformer.max_seq_len of "
                f"{data.longest_row}, not {config.max_seq_len}; raise it or lower them"
            )

    def example(self, batch: Batch, batch_idx: int, *, training: bool) -> Example:
        """The padded pairs as they come."""
        return Example(
            tokens=batch["tokens"],
            targets=batch["targets"],
            source=batch.get("source"),
            source_documents=batch.get("source_documents"),
        )

    def work(self, batch: Batch) -> tuple[int, float]:
        """Tokens of sources and targets without padding, and the FLOPs of pairs of mean length."""
        rows, source, target = len(batch["tokens"]), batch["source_len"], batch["target_len"]
        joined = self.transformer_config.encoder is None
        flops = training_flops(
            self.transformer.config,
            target=round(((source if joined else 0) + target) / rows),
            asked=target / rows,
            source=0 if joined else round(source / rows),
        )
        return source + target, rows * flops

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add how a source is put before the network."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["source_eos"] = self.source_eos
