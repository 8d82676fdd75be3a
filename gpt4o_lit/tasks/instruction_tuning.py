"""Conversations: what an assistant says is learned, what it is told is read."""

from gpt4o_lit.model import TransformerConfig, training_flops
from gpt4o_lit.objectives import Example
from gpt4o_lit.optim import OptimizerRecipe, Schedule
from gpt4o_lit.tasks.task import NO_STACKS
from gpt4o_lit.tasks.token_prediction import Batch, TokenPrediction


class InstructionTuning(TokenPrediction):
    """Learn to say what assistants say in conversations.

    Args:
        transformer: The network: a decoder.
        label_smoothing: Share of each target that is spread over all pieces (arXiv:1512.00567).
        optimizer: Default: AdamW at a learning rate of 1e-3.
        schedule: Factor of the learning rate per step. Default: warm-up, then cosine.
        compile: Compile the stacks of the network; checkpoint keys stay as they are.
        pretrained: In place of transformer: a run's directory, from `fit` or `import`, whose
            network and weights are gone on from. The data takes the run's tokenizer; the marks of
            messages that the network lacks are added to it.
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
        if self.transformer_config.kind != "decoder":
            raise ValueError(
                "InstructionTuning needs transformer: decoder, but the config gives "
                f"{self.transformer_config.kind.replace('_', ' + ')}; give a decoder alone"
            )
        self.label_smoothing = self._share("label_smoothing", label_smoothing)

    def setup(self, stage: str) -> None:
        """Refuse conversations that are longer than the network reads."""
        super().setup(stage)
        longest, most = self.datamodule.longest_row, self.transformer_config.max_seq_len
        if longest > most:
            raise ValueError(
                f"conversations.max_len ({longest + 1}) must be at most transformer.max_seq_len "
                f"({most}) and 1; lower max_len or raise max_seq_len"
            )

    def example(self, batch: Batch, batch_idx: int, *, training: bool) -> Example:
        """The conversations as they come."""
        return Example(
            tokens=batch["tokens"], targets=batch["targets"], documents=batch.get("documents")
        )

    def work(self, batch: Batch) -> tuple[int, float]:
        """Pieces without padding, and the FLOPs of conversations of mean length."""
        count, pieces = batch["conversations"], batch["source_len"]
        flops = training_flops(
            self.transformer.config, target=round(pieces / count), asked=batch["target_len"] / count
        )
        return pieces, count * flops
