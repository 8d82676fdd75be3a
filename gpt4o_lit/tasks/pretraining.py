"""Pretraining: a Transformer, an objective, and packed windows of text."""

from typing import Any

import torch
from torch import Tensor

from gpt4o_lit.model import TransformerConfig, training_flops
from gpt4o_lit.objectives import CausalLM, Draws, Example, Objective, Vocabulary
from gpt4o_lit.optim import OptimizerRecipe, Schedule
from gpt4o_lit.strategies import data_place
from gpt4o_lit.tasks.task import NO_STACKS
from gpt4o_lit.tasks.token_prediction import Batch, TokenPrediction


class Pretraining(TokenPrediction):
    """Learn from raw text by an objective: causal, masked, span corruption or prefix.

    Args:
        transformer: The network: an encoder, a decoder, or both; its weights start at random.
        objective: What is asked of it. Default: causal language modelling.
        optimizer: Default: AdamW at a learning rate of 1e-3.
        schedule: Factor of the learning rate per step. Default: warm-up, then cosine.
        compile: Compile the stacks of the network; checkpoint keys stay as they are.
        pretrained: In place of transformer: a run's directory, from `fit` or `import`, whose
            network and weights are gone on from. The data takes the run's tokenizer; pieces that
            the network lacks are added to it.
        dropout: With pretrained: of every stack, in place of the run's.
    """

    def __init__(
        self,
        transformer: TransformerConfig = NO_STACKS,
        objective: Objective | None = None,
        optimizer: OptimizerRecipe | None = None,
        schedule: Schedule | None = None,
        compile: bool = False,
        pretrained: str | None = None,
        dropout: float | None = None,
    ) -> None:
        super().__init__(transformer, optimizer, schedule, compile, pretrained, dropout)
        self.objective: Objective = objective or CausalLM()
        given = self.transformer_config.kind
        if given != self.objective.needs:
            raise ValueError(
                f"objective {type(self.objective).__name__} needs transformer: "
                f"{self.objective.needs.replace('_', ' + ')}, but the config gives "
                f"{given.replace('_', ' + ')}; give those stacks or change the objective"
            )

    def setup(self, stage: str) -> None:
        """Tell the objective which pieces the tokenizer has, and agree on what windows draw by."""
        super().setup(stage)
        # Processes get random generators of their own when training starts; this is one for all.
        self._seed: int = self.trainer.strategy.broadcast(torch.initial_seed())
        tokenizer = self.datamodule.tokenizer
        seq_len, longest = self.datamodule.seq_len, self.transformer_config.max_seq_len
        if seq_len > longest:
            raise ValueError(
                f"data.seq_len ({seq_len}) must be at most transformer.max_seq_len ({longest}); "
                "lower seq_len or raise max_seq_len"
            )
        self.objective.bind(
            Vocabulary(
                size=tokenizer.vocab_size,
                pad_id=tokenizer.pad_id,
                bos_id=tokenizer.bos_id,
                eos_id=tokenizer.eos_id,
                mask_id=tokenizer.mask_id,
                sentinel_ids=tokenizer.sentinel_ids,
                fim_ids=tokenizer.fim_ids,
                special_ids=tokenizer.special_ids,
                starts_word=torch.from_numpy(tokenizer.starts_word),
            )
        )

    @property
    def mark_ids(self) -> tuple[int, ...]:
        """Those of the objective."""
        return self.objective.mark_ids

    def example(self, batch: Batch, batch_idx: int, *, training: bool) -> Example:
        """Windows as the objective cuts them."""
        prepare = self.objective.prepare if training else self.objective.prepare_evaluation
        draws = self._draws(batch["tokens"], batch_idx, training=training)
        return prepare(batch["tokens"], batch["documents"], draws)

    def work(self, batch: Batch) -> tuple[int, float]:
        """Tokens of the windows, and the FLOPs of what the objective cuts them to."""
        rows, seq_len = batch["tokens"].shape[0], batch["tokens"].shape[1] - 1
        lengths = self.objective.lengths(seq_len)
        flops = training_flops(
            self.transformer.config,
            target=lengths.target,
            asked=lengths.asked,
            source=lengths.source,
        )
        return rows * seq_len, rows * flops

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add how the network has learned to read a prompt."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["bidirectional_prompt"] = self.objective.bidirectional_prompt
        checkpoint["fills_gaps"] = self.objective.fills_gaps

    def _draws(self, tokens_BT1: Tensor, batch_idx: int, *, training: bool) -> Draws:
        """Each window of each epoch draws by itself, on whatever process it is read and in whatever
        batch; each validation draws alike."""
        epoch, stage = (self.current_epoch, 0) if training else (0, 1)
        (place, places), data = data_place(self.trainer), self.datamodule
        size = data.batch_size if training else data.eval_batch_size
        first = (batch_idx * places + place) * size
        places_B = torch.arange(first, first + len(tokens_BT1), device=tokens_BT1.device)
        return Draws((self._seed, stage, epoch), places_B)
