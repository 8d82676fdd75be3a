"""How near generated texts come to references, from statistics that add up over examples.

However examples are cut into batches or spread over ranks, the sum of the parts' statistics gives
the score of the whole. All scores here run from 0 to 100, as the field prints them (TER may exceed
it); those of `label_metrics` run from 0 to 1.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol, get_args

import numpy as np

from gpt4o_lit.evaluation.answer_metrics import CJK, WORD, code_match, exact_match, token_f1

CorpusMetricName = Literal["sacrebleu", "chrf", "ter"]
TextMetricName = Literal[
    "sacrebleu", "chrf", "ter", "rouge", "exact_match", "token_f1", "code_match"
]
LOWER_IS_BETTER = frozenset({"ter"})
"""Of the names of scores; of all others higher is better."""
_ROUGE = ("rouge1", "rouge2", "rougeL")
# Numbers that sacreBLEU keeps of a segment.
_SIZES: dict[CorpusMetricName, int] = {"sacrebleu": 10, "chrf": 18, "ter": 2}


class TextMetric(Protocol):
    """What is kept of outputs beside references, and the scores that come of it."""

    @property
    def name(self) -> str: ...

    def statistics(self, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """Sums over the examples (float64, one axis, always of the same length).

        No examples, as on a rank that got none, are zeros.

        Args:
            references: One or more for each output; their number may differ.

        Raises:
            ValueError: lengths differ, an output has no reference, its references are a string, or
                the extra `metrics` is not installed.
        """

    def scores(self, statistics: np.ndarray) -> dict[str, float]:
        """By name, on a scale of 0 to 100.

        Raises:
            ValueError: the statistics are of no examples.
        """

    def signature(self, statistics: np.ndarray) -> str:
        """How the scores were made, to be printed beside them."""


@dataclass(frozen=True)
class CorpusMetric:
    """A score of a whole corpus, which is no mean over examples, by sacreBLEU (arXiv:1804.08771).

    sacrebleu: BLEU; its tokenizer is `zh` where the references are mostly CJK, else `13a`.
    chrf: chrF2, F-score of character n-grams (aclanthology.org/W15-3049).
    ter: translation edit rate, edits per word of a reference, or per character where the references
    are mostly CJK (aclanthology.org/2006.amta-papers.25). Slow where texts are long: tenths of a
    second for 100 words.

    Statistics: examples, references, squares of references per example, CJK characters and other
    words in the references, then what sacreBLEU keeps under each of its tokenizers. Which of them
    counts is seen from the sum alone, so ranks and batches need not agree on it.
    """

    name: CorpusMetricName

    def statistics(self, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """See `TextMetric.statistics`."""
        _check(outputs, references)
        counts = np.array([len(each) for each in references], dtype=np.float64)
        texts = [text for each in references for text in each]
        cjk = sum(len(CJK.findall(text)) for text in texts)
        words = sum(len(WORD.findall(text)) for text in texts)
        sums = [np.array([len(outputs), counts.sum(), (counts**2).sum(), cjk, words], np.float64)]
        for scorer in _scorers(self.name):
            rows = [
                scorer._extract_corpus_statistics([output], [[text] for text in each])[0]
                for output, each in zip(outputs, references, strict=True)
            ]
            sums.append(np.array(rows, np.float64).reshape(-1, _SIZES[self.name]).sum(0))
        return np.concatenate(sums)

    def scores(self, statistics: np.ndarray) -> dict[str, float]:
        """See `TextMetric.scores`."""
        _check_examples(self.name, statistics)
        start = 5 + self._choice(statistics) * _SIZES[self.name]
        kept = statistics[start : start + _SIZES[self.name]].tolist()
        scorer = _scorers(self.name)[self._choice(statistics)]
        return {self.name: float(scorer._compute_score_from_stats(kept).score)}

    def signature(self, statistics: np.ndarray) -> str:
        """SacreBLEU's own, such as nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0."""
        _check_examples(self.name, statistics)
        examples, total, squares = statistics[:3].tolist()
        scorer = _scorers(self.name)[self._choice(statistics)]
        # The numbers are all the same where they have no variance; -1 stands for numbers that vary.
        scorer.num_refs = int(total / examples) if examples * squares == total**2 else -1
        return str(scorer.get_signature())

    def _choice(self, statistics: np.ndarray) -> int:
        return int(statistics[3] > statistics[4]) if len(_scorers(self.name)) > 1 else 0


@dataclass(frozen=True)
class MeanMetric:
    """A mean over examples. Statistics: examples, then the sum of each score."""

    name: str
    keys: tuple[str, ...]
    """Names of the scores."""
    judge: Callable[[str, Sequence[str]], Sequence[float]]
    """The scores of one output beside its references, 0 to 1."""
    rules: str
    """The signature."""

    def statistics(self, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """See `TextMetric.statistics`."""
        _check(outputs, references)
        rows = [(1.0, *self.judge(*each)) for each in zip(outputs, references, strict=True)]
        return np.array(rows, np.float64).reshape(-1, 1 + len(self.keys)).sum(0)

    def scores(self, statistics: np.ndarray) -> dict[str, float]:
        """See `TextMetric.scores`."""
        _check_examples(self.name, statistics)
        means = 100 * statistics[1:] / statistics[0]
        return dict(zip(self.keys, means.tolist(), strict=True))

    def signature(self, statistics: np.ndarray) -> str:
        """See `TextMetric.signature`."""
        return self.rules


def rouge(stem: bool = False) -> MeanMetric:
    """ROUGE-1, -2 and -L, F-measures (aclanthology.org/W04-1013), by Google's rouge-score.

    Of several references the best counts, for each of the three. Each CJK character is a token;
    the rest is rouge-score's, which knows a to z and digits alone: a text in another alphabet,
    such as Cyrillic, has no tokens and scores 0.

    Args:
        stem: Cut the endings off English words first (Porter).
    """

    def judge(output: str, references: Sequence[str]) -> list[float]:
        found = _rouge_scorer(stem).score_multi(references, output)
        return [float(found[key].fmeasure) for key in _ROUGE]

    rules = f"stem:{'yes' if stem else 'no'}|cjk:characters|refs:best"
    return MeanMetric("rouge", _ROUGE, judge, rules)


def _answer(name: str, judge: Callable[[str, Sequence[str]], float], rules: str) -> MeanMetric:
    return MeanMetric(name, (name,), lambda output, texts: (judge(output, texts),), rules)


_SQUAD_RULES = "squad:1.1|case:lc|punct:no|articles:no|cjk:characters|refs:best"
TEXT_METRICS: dict[TextMetricName, TextMetric] = {
    "sacrebleu": CorpusMetric("sacrebleu"),
    "chrf": CorpusMetric("chrf"),
    "ter": CorpusMetric("ter"),
    "rouge": rouge(),
    "exact_match": _answer("exact_match", exact_match, _SQUAD_RULES),
    "token_f1": _answer("token_f1", token_f1, _SQUAD_RULES),
    "code_match": _answer("code_match", code_match, "case:mixed|blanks:collapsed|refs:best"),
}


def text_metric(name: str) -> TextMetric:
    """The metric of that name.

    Raises:
        ValueError: there is none.
    """
    for known in get_args(TextMetricName):
        if name == known:
            return TEXT_METRICS[known]
    raise ValueError(f"text metric '{name}' is unknown; choose one of {', '.join(TEXT_METRICS)}")


def _check(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(outputs) != len(references):
        raise ValueError(
            f"{len(outputs)} outputs and references for {len(references)} must be equally many; "
            "give one list of references for each output"
        )
    for number, each in enumerate(references):
        if isinstance(each, str):
            raise ValueError(
                f"the references of output {number} ('{each[:40]}') must be a list of strings; put "
                "a single one into a list"
            )
        if not each:
            raise ValueError(
                f"output {number} has 0 references and needs at least 1; give one or leave it out"
            )


def _check_examples(name: str, statistics: np.ndarray) -> None:
    if not statistics[0]:
        raise ValueError(f"{name} of 0 examples is not defined; give at least 1 output")


class _RougeTokens:
    """Rouge-score's tokens of what stands between CJK characters, which are tokens themselves."""

    def __init__(self, stem: bool) -> None:
        self.words = _library("rouge_score.tokenizers").DefaultTokenizer(stem)

    def tokenize(self, text: str) -> list[str]:
        tokens: list[str] = []
        for number, part in enumerate(CJK.split(text)):  # every other part is such a character
            tokens += [part] if number % 2 else self.words.tokenize(part)
        return tokens


@cache
def _rouge_scorer(stem: bool) -> Any:
    scorer = _library("rouge_score.rouge_scorer").RougeScorer
    return scorer(list(_ROUGE), tokenizer=_RougeTokens(stem))


@cache
def _scorers(name: CorpusMetricName) -> tuple[Any, ...]:
    """Of sacreBLEU: for words between blanks and, where it is another, for CJK."""
    metrics = _library("sacrebleu.metrics")
    if name == "sacrebleu":
        return metrics.BLEU(tokenize="13a"), metrics.BLEU(tokenize="zh")
    if name == "chrf":
        return (metrics.CHRF(),)
    return metrics.TER(), metrics.TER(normalized=True, asian_support=True)


def _library(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"text metrics need {error.name}; pip install 'gpt4o-lit[metrics]'"
        ) from error
