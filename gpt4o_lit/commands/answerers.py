"""What a run makes of sources: texts that it writes, or classes that it gives."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import yaml
from torch import Tensor

from gpt4o_lit.commands.run_flags import opened_run, prompt_format_of
from gpt4o_lit.corpus.labelled import joined, texts_of_row
from gpt4o_lit.corpus.pairs import collapsed
from gpt4o_lit.corpus.spans import Window, windows_of
from gpt4o_lit.corpus.tagged import pieces_of, words_of
from gpt4o_lit.corpus.template import Template
from gpt4o_lit.evaluation.spans import find_answer
from gpt4o_lit.generation import BeamConfig, likeliest
from gpt4o_lit.interop.run import OpenedRun
from gpt4o_lit.model.pool import class_scores
from gpt4o_lit.run_directory import RunDirectory

Source = list[int]
Answer = dict[str, Any]
"""`output`, and what else is known of it."""


@dataclass(frozen=True)
class Asked:
    """A question in the windows of its text."""

    windows: list[Window]
    context: str

    def __len__(self) -> int:
        return len(self.windows)


class Answerer(ABC):
    """A run, and what its config says of rows."""

    def __init__(self, run: OpenedRun, settings: Mapping[str, Any], templates: list[str]) -> None:
        self.run, self.templates = run, [Template(text) for text in templates]
        self.columns: list[str] | None = settings.get("columns")
        """Of tables without a header line, as the run had them."""

    @property
    def weights(self) -> str:
        """The file of its weights."""
        return str(self.run.checkpoint)

    def only_column(self) -> str:
        """The one column of a source that is a text alone."""
        columns = [name for template in self.templates for name in template.columns]
        if len(columns) != 1:
            raise ValueError(
                f"a source of this run has the columns {', '.join(columns)}, which a text alone "
                "does not give; give a .jsonl file with all of them"
            )
        return columns[0]

    @abstractmethod
    def source(self, values: Mapping[str, Any]) -> Any:
        """The pieces of a row's source, as many of them as training has seen."""

    @abstractmethod
    def answers(self, sources: Sequence[Any]) -> list[Answer]:
        """What is answered to each."""


class _Writer(Answerer):
    """Writes texts, by one beam or several."""

    def __init__(self, run: OpenedRun, settings: Mapping[str, Any], args: Any) -> None:
        super().__init__(run, settings, [settings["source"]])
        self.longest = settings["max_source_len"] - 1
        self.collapses = settings.get("collapse_blanks", False)
        self.beams = BeamConfig(
            num_beams=args.num_beams,
            max_new_tokens=args.max_new_tokens or settings["max_target_len"],
            length_penalty=args.length_penalty,
        )

    def source(self, values: Mapping[str, Any]) -> Source:
        text = self.templates[0].render(values)
        if self.collapses:
            text = collapsed(text)
        return self.run.tokenizer.encode(text)[: self.longest]

    def answers(self, sources: Sequence[Source]) -> list[Answer]:
        net, tokenizer = self.run.transformer, self.run.tokenizer
        form = prompt_format_of(self.run)
        texts = likeliest(net, tokenizer, sources, self.beams, prompt_format=form)
        return [{"output": text} for text in texts]


class _Classifier(Answerer):
    """Gives names of classes, and how likely each is."""

    def __init__(self, run: OpenedRun, settings: Mapping[str, Any], args: Any) -> None:
        text = settings["text"]
        super().__init__(run, settings, [text] if isinstance(text, str) else text)
        assert run.classification is not None
        self.room = settings["max_len"] - 2
        self.classes: list[str] = run.classification["classes"]
        for name in ("num_beams", "length_penalty", "max_new_tokens"):
            if getattr(args, name) not in (None, 1):
                raise ValueError(f"--{name} is for runs that write; leave it out")

    def source(self, values: Mapping[str, Any]) -> Source:
        tokenizer = self.run.tokenizer
        texts = texts_of_row(self.templates, values)
        pieces = joined(tokenizer.encode_batch(texts), tokenizer, self.room)
        return [tokenizer.bos_id, *pieces, tokenizer.eos_id]

    @torch.inference_mode()
    def answers(self, sources: Sequence[Source]) -> list[Answer]:
        told = self.run.classification
        assert told is not None
        net, tokenizer = self.run.transformer, self.run.tokenizer
        tokens_BT, documents_BT = _padded(sources, tokenizer.pad_id)
        scores_BC = class_scores(net, tokens_BT, documents_BT, told["pool"], tokenizer.eos_id)
        several = told["multi_label"]
        chances_BC = scores_BC.float().sigmoid() if several else scores_BC.float().softmax(1)
        answers = []
        for row in chances_BC.tolist():
            chances = dict(zip(self.classes, (round(p, 6) for p in row), strict=True))
            best = max(chances, key=lambda name: chances[name])
            names = [name for name, p in chances.items() if p >= 0.5] if several else [best]
            answers.append({"output": ", ".join(names), "probabilities": chances})
        return answers


class _Tagger(Answerer):
    """Gives each word a tag."""

    def __init__(self, run: OpenedRun, settings: Mapping[str, Any], args: Any) -> None:
        super().__init__(run, settings, [f"{{{settings['tokens']}}}"])
        assert run.classification is not None
        self.column, self.room = settings["tokens"], settings["max_len"] - 2
        self.classes: list[str] = run.classification["classes"]

    def source(self, values: Mapping[str, Any]) -> Source:
        """The pieces, and for each 1 where a word begins: one list behind the other."""
        words = words_of(values, self.column)
        pieces = pieces_of(words, self.run.tokenizer)
        starts = [n for word in pieces for n in (1, *[0] * (len(word) - 1))]
        return [*(id for word in pieces for id in word), *starts]

    @torch.inference_mode()
    def answers(self, sources: Sequence[Source]) -> list[Answer]:
        """Words that training would have left out, at the end of long sentences, have no tag."""
        tokenizer, halves = self.run.tokenizer, [len(source) // 2 for source in sources]
        pieces = [source[:n][: self.room] for source, n in zip(sources, halves, strict=True)]
        starts = [source[n:] for source, n in zip(sources, halves, strict=True)]
        read = [[tokenizer.bos_id, *each, tokenizer.eos_id] for each in pieces]
        tokens_BT, documents_BT = _padded(read, tokenizer.pad_id)
        best_BT = self.run.transformer(tokens_BT, documents_BT=documents_BT).argmax(-1)
        answers = []
        for row, own, begins in zip(best_BT.tolist(), pieces, starts, strict=True):
            given = zip(row[1 : 1 + len(own)], begins, strict=False)
            tags = [self.classes[number] for number, start in given if start]
            missing: list[str | None] = [None] * (sum(begins) - len(tags))
            answers.append({"output": " ".join(tags), "tags": [*tags, *missing]})
        return answers


class _Finder(Answerer):
    """Finds the part of a text that answers a question."""

    def __init__(self, run: OpenedRun, settings: Mapping[str, Any], args: Any) -> None:
        columns = [settings["question"], settings["context"]]
        super().__init__(run, settings, [f"{{{name}}}" for name in columns])
        self.limits = {name: settings[name] for name in ("max_len", "stride")}

    def source(self, values: Mapping[str, Any]) -> Asked:
        question, context = texts_of_row(self.templates, values)
        return Asked(windows_of(question, context, self.run.tokenizer, **self.limits), context)

    def answers(self, sources: Sequence[Any]) -> list[Answer]:
        net, tokenizer = self.run.transformer, self.run.tokenizer
        assert self.run.classification is not None
        none: bool = self.run.classification["unanswered"]
        return [
            {"output": find_answer(net, tokenizer, each.windows, each.context, unanswered=none)}
            for each in sources
        ]


def _padded(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Rows filled up on the right, and their documents: 0, padding -1."""
    longest = max(map(len, rows))
    both = [(row, longest - len(row)) for row in rows]
    tokens_BT = torch.tensor([[*row, *[pad_id] * n] for row, n in both])
    return tokens_BT, torch.tensor([[0] * len(row) + [-1] * n for row, n in both])


def answerer_of(args: Any) -> Answerer:
    """The run that the flags name, ready to answer.

    Raises:
        ValueError: it was trained on nothing that has answers.
    """
    config = RunDirectory.existing(args.run).config
    values: Any = yaml.safe_load(config.read_text(encoding="utf-8"))
    data = values.get("data") if isinstance(values, dict) else None
    settings = (data or {}).get("init_args") or {}
    if "pairs" in settings:
        return _Writer(opened_run(args), settings["pairs"], args)
    if "labelled" in settings:
        return _Classifier(opened_run(args), settings["labelled"], args)
    if "spans" in settings:
        return _Finder(opened_run(args), settings["spans"], args)
    if "tagged" in settings:
        return _Tagger(opened_run(args), settings["tagged"], args)
    raise ValueError(
        f"{args.run} was trained on no examples that have answers, so it answers nothing; "
        "use `gpt4o-lit generate`"
    )
