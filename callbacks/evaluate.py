"""How well the network does on texts and tasks while it learns."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from lightning import Callback, LightningModule, Trainer

from gpt4o_lit.callbacks.samples import evaluating, prompt_format_of
from gpt4o_lit.evaluation.perplexity import text_quality
from gpt4o_lit.evaluation.results import Result, of_harness, of_texts


class Evaluate(Callback):
    """Logs `eval/TASK/METRIC` every n steps, as `gpt4o-lit evaluate` would tell them.

    Training is the same with and without it.

    Args:
        tasks: NAME, NAME=FILE or NAME=FOLDER, as `gpt4o-lit evaluate --tasks` takes them.
        texts: UTF-8 files to measure perplexity and bits per byte on.
        every_n_steps: Measure after each n-th step.
        limit: The first rows of each task alone.
        num_fewshot: Examples before each question. Default: the task's own.
        enabled: False measures nothing.
    """

    needs_whole_weights: ClassVar[bool] = True

    def __init__(
        self,
        tasks: list[str] | None = None,
        texts: list[str] | None = None,
        every_n_steps: int = 1000,
        limit: int | None = None,
        num_fewshot: int | None = None,
        enabled: bool = True,
    ) -> None:
        if not tasks and not texts:
            raise ValueError("Evaluate has neither tasks nor texts; give one of them")
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps ({every_n_steps}) must be at least 1; set it to 1000")
        self.tasks, self.texts = tasks or [], texts or []
        self.every_n_steps, self.enabled = every_n_steps, enabled
        self.limit, self.num_fewshot = limit, num_fewshot
        self._prepared: Sequence[Path | str] = []
        self._read: dict[str, str] = {}
        self._measured_step = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read texts and tasks at once: what is missing is told before training."""
        if not self.enabled or not trainer.is_global_zero:
            return
        self._measured_step = trainer.global_step
        self._read = {name: Path(name).read_text(encoding="utf-8") for name in self.texts}
        if self.tasks:
            from gpt4o_lit.evaluation.harness import write_tasks

            folder = Path(trainer.default_root_dir) / "evaluate" / "tasks"
            self._prepared = write_tasks(self.tasks, folder)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Measure where a step is due, in evaluation mode."""
        step = trainer.global_step
        if not self.enabled or step % self.every_n_steps or step == self._measured_step:
            return
        self._measured_step = step
        if trainer.is_global_zero:
            with evaluating(pl_module.transformer):
                results = self._results(trainer, pl_module)
            values = {f"eval/{each.task}/{each.metric}": each.value for each in results}
            for logger in trainer.loggers:  # by `log` they would be told at later steps once more
                logger.log_metrics(values, step - 1)
        trainer.strategy.barrier("evaluate")

    def _results(self, trainer: Any, pl_module: Any) -> list[Result]:
        net, tokenizer = pl_module.transformer, trainer.datamodule.tokenizer
        form = prompt_format_of(trainer, pl_module)
        results = []
        for name, text in self._read.items():
            quality = text_quality(net, tokenizer, [text], prompt_format=form)
            results += of_texts(Path(name).name, 1, quality)
        if self._prepared:
            from gpt4o_lit.evaluation.harness import HarnessModel, evaluate

            model = HarnessModel(net, tokenizer, form)
            found = evaluate(model, self._prepared, limit=self.limit, num_fewshot=self.num_fewshot)
            results += of_harness(found)
        return results
