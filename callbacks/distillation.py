"""Learning from a teacher while a network trains."""

import hashlib
from typing import Any, ClassVar

import torch
from lightning import Callback, Trainer
from torch import nn

from gpt4o_lit.callbacks.structured_pruning import StructuredPruning
from gpt4o_lit.interop.run import OpenedRun, open_run
from gpt4o_lit.model import TransformerConfig
from gpt4o_lit.objectives import Lesson, Teacher
from gpt4o_lit.strategies.compile import compile_


class Distillation(Callback):
    """Learns from the distributions of a teacher, such as the dense parent of what is pruned.

    The teacher reads what the network reads, and is in no checkpoint: a run that goes on opens it
    again, and refuses another. Validation judges by the targets alone. Logs `distillation/loss`
    and, where it is asked for, `distillation/hidden`.

    Args:
        teacher: The directory of a run, whose best checkpoint teaches; it may have other sizes.
            Default: the run that the task's `pretrained` names.
        share: Of the teacher's distribution in the loss; what is left is the targets'.
        temperature: Divides the logits of both; above 1 what is unlikely counts more.
        hidden: Weight of 1 - cosine between what the heads of both read, which must be as wide: not
            with StructuredPruning that cuts width.
        begin: Step before which nothing is taught; below 1 a share of all steps.
        end: Step from which on nothing is taught; up to 1 a share of all steps.
        enabled: False opens no teacher.
    """

    needs_whole_vocabulary: ClassVar[bool] = True
    """Whether it reads the logits of all pieces on each process."""

    def __init__(
        self,
        teacher: str | None = None,
        share: float = 0.5,
        temperature: float = 1.0,
        hidden: float = 0.0,
        begin: float = 0,
        end: float = 1.0,
        enabled: bool = True,
    ) -> None:
        if begin < 0:
            raise ValueError(f"begin ({begin}) must not be negative; set it to 0")
        self.teacher, self.begin, self.end, self.enabled = teacher, begin, end, enabled
        self.lesson = Lesson(share=share, temperature=temperature, hidden=hidden)
        self._fingerprint: str | None = None
        self._logged_step = 0

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Open the teacher, and refuse one that cannot teach this network, before training."""
        if not self.enabled:
            return
        run = open_run(self._directory(pl_module))
        self._require_fit(run, trainer, pl_module)
        self._require_the_same(run)
        network: Any = run.transformer.requires_grad_(False)
        network = trainer.precision_plugin.convert_module(network).to(pl_module.device)
        if pl_module.compile_network:
            compile_(network)
        self._teacher = Teacher(network, self.lesson)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Place the teaching among the steps of the run."""
        if not self.enabled:
            return
        max_steps: int = pl_module.max_steps
        self._first = round(self.begin * max_steps) if self.begin < 1 else round(self.begin)
        self._last = round(self.end * max_steps) if self.end <= 1 else round(self.end)
        if self._first >= min(self._last, max_steps):
            raise ValueError(
                f"begin ({self.begin}: step {self._first}) must come before end ({self.end}: step "
                f"{self._last}) and the run's end (step {max_steps}); lower begin"
            )
        self._logged_step = trainer.global_step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let the teacher in, or out."""
        if self.enabled:
            teaches = self._first <= trainer.global_step < self._last
            pl_module.teacher = self._teacher if teaches else None

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log what not being like the teacher has cost a target since the last time."""
        if not self.enabled or pl_module.teacher is None:
            return
        if not self._teacher.was_asked:
            raise ValueError(
                f"{type(pl_module).__name__}.training_step asks no teacher, so nothing is learned "
                "from one; take Distillation out, or train by gpt4o_lit.tasks.Pretraining"
            )
        step = trainer.global_step
        if step == self._logged_step or step % trainer.log_every_n_steps:
            return
        self._logged_step = step  # micro-batches that do not step come by here too
        sums = trainer.strategy.reduce(self._teacher.take_sums(), reduce_op="sum")
        soft, hidden, targets = sums.tolist()
        if targets:
            pl_module.log("distillation/loss", soft / targets)
            if self.lesson.hidden:
                pl_module.log("distillation/hidden", hidden / targets)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Let the teacher go."""
        pl_module.teacher = None

    def state_dict(self) -> dict[str, Any]:
        """By what the teacher is known again."""
        return {"teacher": self._fingerprint} if self.enabled else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember whom the run has learned from."""
        self._fingerprint = state_dict["teacher"]

    def _directory(self, task: Any) -> str:
        if self.teacher is not None:
            return self.teacher
        if task.pretrained is None:
            raise ValueError(
                "teacher (null) must be the directory of a run where the network starts at random; "
                "set trainer.callbacks' teacher, or model.init_args.pretrained"
            )
        return str(task.pretrained.path.parent.parent)

    def _require_fit(self, run: OpenedRun, trainer: Any, task: Any) -> None:
        data, config = trainer.datamodule, run.transformer.config
        if run.tokenizer.fingerprint != data.tokenizer.fingerprint:
            raise ValueError(
                f"teacher ({run.path}) was trained on other pieces than the data has; set "
                "data.init_args.tokenizer to class_path gpt4o_lit.tokenizer.LoadTokenizer, "
                f"init_args.path {run.path}"
            )
        require_comparable(config, task.transformer.config, self.lesson)
        if data.longest_row > config.max_seq_len:
            raise ValueError(
                f"the data's rows (up to {data.longest_row} pieces) must be no longer than the "
                f"max_seq_len of the teacher ({config.max_seq_len}); lower data.seq_len, or the "
                "longest source and target"
            )
        told, classes = run.classification or {}, getattr(data, "classes", None)
        if classes is not None and told["classes"] != classes:
            raise ValueError(
                f"teacher ({run.path}) tells other classes apart ({', '.join(told['classes'])}) "
                "than the data has; set the classes of the data to them, in their order"
            )
        several = getattr(task, "multi_label", False)
        if told.get("multi_label", False) != several:
            raise ValueError(
                f"teacher ({run.path}) gives a text {'one class' if several else 'several classes'}"
                f", but here it has {'several' if several else 'one'}; give another teacher, or "
                f"set labelled.multi_label to {str(not several).lower()}"
            )
        for other in trainer.callbacks:
            cuts = isinstance(other, StructuredPruning) and other.enabled and other.cut.width
            if self.lesson.hidden and cuts:
                raise ValueError(
                    f"hidden ({self.lesson.hidden}) compares features as wide as the teacher's, "
                    f"but StructuredPruning cuts width ({cuts}); set hidden to 0, or cut.width to 0"
                )

    def _require_the_same(self, run: OpenedRun) -> None:
        found = fingerprint(run.transformer)
        if self._fingerprint not in (None, found):
            raise ValueError(
                f"teacher ({run.checkpoint}) has other weights than when this run began, which "
                "cannot go on exactly; put the file back, or begin another run by pretrained"
            )
        self._fingerprint = found


def require_comparable(
    teacher: TransformerConfig, student: TransformerConfig, lesson: Lesson
) -> None:
    """Refuse a teacher whose answers cannot be laid beside the student's.

    Raises:
        ValueError: naming the field in which they differ, and the mend.
    """
    stacks = [
        " + ".join(side for side in ("encoder", "decoder") if getattr(config, side))
        for config in (teacher, student)
    ]
    if stacks[0] != stacks[1]:
        raise ValueError(
            f"teacher has {stacks[0]}, but must have the stacks of the student, {stacks[1]}; give "
            "a run of such a network"
        )
    if teacher.vocab_size != student.vocab_size:
        raise ValueError(
            f"vocab_size of the teacher ({teacher.vocab_size}) must be that of the student "
            f"({student.vocab_size}); give a run whose network has as many pieces"
        )
    if teacher.num_classes != student.num_classes:
        heads = [
            "pieces" if config.num_classes is None else f"{config.num_classes} classes"
            for config in (teacher, student)
        ]
        raise ValueError(
            f"the teacher's head is of {heads[0]}, but must be of {heads[1]}, as the student's; "
            "give a run of the same task"
        )
    if lesson.hidden and teacher.dim != student.dim:
        raise ValueError(
            f"hidden ({lesson.hidden}) compares features, but dim of the teacher ({teacher.dim}) "
            f"is not that of the student ({student.dim}); set hidden to 0"
        )


def fingerprint(network: nn.Module) -> str:
    """Equal for networks of equal weights."""
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in network.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.cpu().flatten().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()
