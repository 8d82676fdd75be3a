"""How good the texts are that the network writes, by metrics of its task."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import distributed
from tqdm import tqdm

from gpt4o_lit.callbacks.samples import evaluating, prompt_format_of
from gpt4o_lit.evaluation.spans import find_answer
from gpt4o_lit.evaluation.text_metrics import TextMetricName, text_metric
from gpt4o_lit.generation import BeamConfig, likeliest
from gpt4o_lit.model import Transformer
from gpt4o_lit.strategies import whole_network

COLUMNS = ["source", "reference", "output"]


@dataclass(frozen=True)
class Answered:
    """A source, what counts as right, and what the network wrote."""

    number: int
    source: str
    references: list[str]
    output: str


class TextQuality(Callback):
    """Lets the network answer the sources of validation and test, and scores what it writes.

    Logs `val/METRIC` and `test/METRIC`, by which `checkpoint.monitor` may choose the best (with
    `checkpoint.mode: max`). Appends scores and their signatures to outputs/scores.jsonl, writes all
    outputs to outputs/SPLIT-STEP.jsonl, and hands the first of them to loggers that show tables.

    Args:
        metrics: sacrebleu, chrf, ter, rouge, exact_match, token_f1, code_match.
        num_beams: Texts searched side by side; 1 is greedy.
        length_penalty: With beams: more favours long texts.
        max_new_tokens: Most pieces to write. Default: those of the longest target.
        max_examples: The first examples of validation alone; testing answers all. Default: all.
        batch_size: Sources answered at once.
        table_rows: Examples that loggers show.
        enabled: False writes nothing.
    """

    def __init__(
        self,
        metrics: list[TextMetricName],
        num_beams: int = 1,
        length_penalty: float = 1.0,
        max_new_tokens: int | None = None,
        max_examples: int | None = None,
        batch_size: int = 32,
        table_rows: int = 10,
        enabled: bool = True,
    ) -> None:
        if not metrics:
            raise ValueError("metrics is empty; name at least one, such as sacrebleu")
        for name, value in (("num_beams", num_beams), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name} ({value}) must be at least 1")
        self.metrics = {name: text_metric(name) for name in metrics}
        self.num_beams, self.length_penalty = num_beams, length_penalty
        self.max_new_tokens, self.max_examples = max_new_tokens, max_examples
        self.batch_size, self.table_rows, self.enabled = batch_size, table_rows, enabled

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse data without references, and metrics that are not installed, before training."""
        if not self.enabled:
            return
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not hasattr(datamodule, "texts") and not hasattr(datamodule, "questions"):
            raise ValueError(
                f"TextQuality scores answers, but {type(datamodule).__name__} has none; use it "
                "with PairsDataModule or SpansDataModule, or take it out"
            )
        for metric in self.metrics.values():
            metric.statistics(["a"], [["a"]])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Answer and score the validation split."""
        if self.enabled and not trainer.sanity_checking:
            self._score(trainer, pl_module, "valid", "val", self.max_examples)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same for the whole test split."""
        if self.enabled:
            self._score(trainer, pl_module, "test", "test", None)

    def _score(self, trainer: Any, task: Any, split: str, name: str, most: int | None) -> None:
        data = trainer.datamodule
        of_spans = hasattr(data, "questions")
        asked = list(enumerate((data.questions if of_spans else data.texts)(split)[:most]))
        mine = asked[trainer.global_rank :: trainer.world_size]
        network = whole_network(trainer.strategy, task.transformer)
        with evaluating(network):
            answer = self._find if of_spans else self._answer
            answered = answer(trainer, task, network, mine)
        outputs, references = [a.output for a in answered], [a.references for a in answered]
        scores, signatures = {}, {}
        for metric in self.metrics.values():
            own = torch.from_numpy(metric.statistics(outputs, references)).to(task.device)
            sums = trainer.strategy.reduce(own, reduce_op="sum").cpu().numpy()
            for key, value in metric.scores(sums).items():
                scores[f"{name}/{key}"] = value
                signatures[f"{name}/{key}"] = metric.signature(sums)
        for number, (key, value) in enumerate(scores.items()):
            task.log(key, value, prog_bar=number == 0)
        everyone = _gathered(answered, trainer.world_size)
        if trainer.is_global_zero and not trainer.fast_dev_run:
            self._write(trainer, name, everyone, {"scores": scores, "signatures": signatures})

    def _answer(
        self, trainer: Any, task: Any, network: Transformer, pairs: Sequence[tuple[int, Any]]
    ) -> list[Answered]:
        """What the network makes of the sources, in their order."""
        data, form = trainer.datamodule, prompt_format_of(trainer, task)
        beams = BeamConfig(
            num_beams=self.num_beams,
            max_new_tokens=self.max_new_tokens or data.pairs.max_target_len,
            length_penalty=self.length_penalty,
        )
        by_length = sorted(pairs, key=lambda pair: len(pair[1].source))
        show = trainer.is_global_zero and trainer.progress_bar_callback is not None
        answered: list[Answered] = []
        with tqdm(total=len(pairs), desc="answering", leave=False, disable=not show) as bar:
            for start in range(0, len(by_length), self.batch_size):
                batch = by_length[start : start + self.batch_size]
                sources = data.tokenizer.encode_batch([pair.source for _, pair in batch])
                read = [source[: data.pairs.max_source_len - 1] for source in sources]
                texts = likeliest(network, data.tokenizer, read, beams, prompt_format=form)
                answered += [
                    Answered(number, pair.source, pair.references, text)
                    for (number, pair), text in zip(batch, texts, strict=True)
                ]
                bar.update(len(batch))
        return sorted(answered, key=lambda each: each.number)

    def _find(
        self, trainer: Any, task: Any, network: Transformer, asked: Sequence[tuple[int, Any]]
    ) -> list[Answered]:
        """What of each question's text answers it."""
        data, answered = trainer.datamodule, []
        show = trainer.is_global_zero and trainer.progress_bar_callback is not None
        for number, each in tqdm(asked, desc="answering", leave=False, disable=not show):
            windows = data.windows(each.question, each.context)
            text = find_answer(
                network, data.tokenizer, windows, each.context,
                unanswered=data.unanswered,
            )  # fmt: skip
            answered.append(Answered(number, each.question, each.answers or [""], text))
        return answered

    def _write(self, trainer: Any, name: str, answered: list[Answered], told: Any) -> None:
        folder = Path(trainer.default_root_dir) / "outputs"
        folder.mkdir(parents=True, exist_ok=True)
        step = trainer.global_step
        lines = [
            json.dumps(
                {"source": a.source, "references": a.references, "output": a.output},
                ensure_ascii=False,
            )
            for a in answered
        ]
        path = folder / f"{name}-{step:06d}.jsonl"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        with (folder / "scores.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"split": name, "step": step, **told}) + "\n")
        rows = [[a.source, a.references[0], a.output] for a in answered[: self.table_rows]]
        for logger in trainer.loggers:
            if hasattr(logger, "log_text"):  # W&B
                logger.log_text(key=f"{name}/texts", columns=COLUMNS, data=rows, step=step)
            elif hasattr(getattr(logger, "experiment", None), "add_text"):  # TensorBoard
                logger.experiment.add_text(f"{name}/texts", _markdown(rows), step)


def _gathered(answered: list[Answered], world_size: int) -> list[Answered]:
    """Those of all processes, in the order of the data."""
    if world_size == 1:
        return answered
    parts: list[Any] = [None] * world_size
    distributed.all_gather_object(parts, answered)
    return sorted((each for part in parts for each in part), key=lambda each: each.number)


def _markdown(rows: list[list[str]]) -> str:
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [COLUMNS, ["---"] * len(COLUMNS), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
