"""Pretraining: a Transformer, an objective, and packed windows of text."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpt4o_lit.model import Transformer, TransformerConfig
from gpt4o_lit.objectives import (
    CausalLM,
    Example,
    Objective,
    Readout,
    Teacher,
    Vocabulary,
    linear_cross_entropy,
    token_statistics,
)
from gpt4o_lit.optim import OptimizerRecipe, Schedule
from gpt4o_lit.tasks.task import NO_STACKS, Task

Batch = dict[str, Tensor]


class Pretraining(Task):
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
        config = self.transformer_config
        stacks = {"encoder": config.encoder, "decoder": config.decoder}
        given = "_".join(name for name, stack in stacks.items() if stack is not None)
        if given != self.objective.needs:
            raise ValueError(
                f"objective {type(self.objective).__name__} needs transformer: "
                f"{self.objective.needs.replace('_', ' + ')}, but the config gives "
                f"{given.replace('_', ' + ') or 'none'}; give those stacks or change the objective"
            )

    def setup(self, stage: str) -> None:
        """Tell the objective which pieces the tokenizer has."""
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
        self._token_bytes = torch.from_numpy(tokenizer.token_bytes).long()
        self._sums = torch.zeros(5, dtype=torch.float64)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One micro-batch: prepare, run, and weigh by its targets."""
        example = self._prepare(batch, batch_idx, stage=0)
        if self.teacher is None:
            return self.weighted_loss(*self._loss_sum(example))
        return self.weighted_loss(*self._taught_loss_sum(example, self.teacher))

    def sample_loss(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean loss of a batch, asked as in validation; it counts nowhere."""
        loss_sum, num_targets = self._loss_sum(self._prepare(batch, batch_idx, stage=1))
        return loss_sum / num_targets.clamp(min=1)

    def on_validation_epoch_start(self) -> None:
        """Start the sums anew."""
        self._sums = torch.zeros(5, dtype=torch.float64, device=self.device)

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add this batch to the sums: losses of all and of text, targets, right guesses, bytes."""
        example = self._prepare(batch, batch_idx, stage=1)
        features, targets = self._features(self.transformer, example)
        head = self.transformer.head
        nll, correct = token_statistics(
            features, head.matrix(), targets, bias=head.bias, softcap=head.softcap
        )
        asked = targets != -100
        marks = torch.tensor(self.objective.mark_ids, dtype=torch.long, device=targets.device)
        text = asked & ~torch.isin(targets, marks)
        num_bytes = self._token_bytes.to(targets.device)[targets[asked]].sum()
        losses = (nll[asked].double().sum(), nll[text].double().sum())
        counts = (asked.sum(), correct[asked].sum(), num_bytes)
        self._sums += torch.stack([*losses, *(count.double() for count in counts)])

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Log what the sums over all ranks say."""
        self._log_quality("val")

    def on_test_epoch_end(self) -> None:
        """The same for the test split."""
        self._log_quality("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Targets (B, T), -100 where nothing is asked, and their negative log-likelihoods."""
        example = self._prepare(batch, batch_idx, stage=1)
        features, targets = self._features(self.transformer, example)
        head = self.transformer.head
        nll, _ = token_statistics(
            features, head.matrix(), targets, bias=head.bias, softcap=head.softcap
        )
        return {"targets": example.targets, "nll": nll.view(example.targets.shape)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add how the network has learned to read a prompt."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["bidirectional_prompt"] = self.objective.bidirectional_prompt

    def _prepare(self, batch: Batch, batch_idx: int, stage: int) -> Example:
        generator = self._generator(batch_idx, stage)
        prepare = self.objective.prepare_evaluation if stage else self.objective.prepare
        return prepare(batch["tokens"], batch["documents"], generator)

    def _generator(self, batch_idx: int, stage: int) -> torch.Generator:
        """Each batch of each epoch on each process draws by itself; each validation draws alike."""
        epoch = self.current_epoch if stage == 0 else 0
        place = (torch.initial_seed(), stage, epoch, batch_idx, self.trainer.global_rank)
        # A generator on the CPU reads the low 32 bits alone, so they must hold all of it.
        seed = np.random.SeedSequence(place).generate_state(1, np.uint64)
        return torch.Generator(device=self.device).manual_seed(int(seed[0]))

    def _features(self, network: Transformer, example: Example) -> tuple[Tensor, Tensor]:
        hidden_BTD = network.hidden(
            example.tokens,
            source_BS=example.source,
            documents_BT=example.documents,
            source_documents_BS=example.source_documents,
            prefix_BT=example.prefix,
        )
        return network.head.features(hidden_BTD).flatten(0, 1), example.targets.flatten()

    def _loss_sum(self, example: Example) -> tuple[Tensor, Tensor]:
        """Over all targets, and their number."""
        features, targets = self._features(self.transformer, example)
        head = self.transformer.head
        loss_sum = linear_cross_entropy(
            features, head.matrix(), targets, bias=head.bias, softcap=head.softcap
        )
        return loss_sum, (targets != -100).sum()

    def _taught_loss_sum(self, example: Example, teacher: Teacher) -> tuple[Tensor, Tensor]:
        """The same, learned from a teacher too, which reads what the network reads."""
        student, targets = self._readout(self.transformer, example)
        with torch.no_grad():
            taught, _ = self._readout(teacher.network, example)
        return teacher.loss(student, taught, targets), (targets != -100).sum()

    def _readout(self, network: Transformer, example: Example) -> tuple[Readout, Tensor]:
        features, targets = self._features(network, example)
        head = network.head
        readout = Readout(
            features=features, weight=head.matrix(), bias=head.bias, softcap=head.softcap
        )
        return readout, targets

    def _log_quality(self, split: str) -> None:
        sums = self.trainer.strategy.reduce(self._sums, reduce_op="sum")
        nll, text_nll, targets, correct, num_bytes = sums.tolist()
        if not targets:
            return
        loss = nll / targets
        self.log(f"{split}/loss", loss, prog_bar=True)
        self.log(f"{split}/perplexity", math.exp(min(loss, 700.0)))
        self.log(f"{split}/accuracy", correct / targets)
        if num_bytes:
            self.log(f"{split}/bits_per_byte", text_nll / math.log(2) / num_bytes, prog_bar=True)
