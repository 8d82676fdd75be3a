"""The scores are those of sacreBLEU and rouge-score, however the examples are cut into parts."""

import random
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("sacrebleu", reason="the extra `metrics` is not installed")
pytest.importorskip("rouge_score", reason="the extra `metrics` is not installed")

import sacrebleu
from rouge_score import rouge_scorer

from gpt4o_lit.evaluation import text_metrics
from gpt4o_lit.evaluation.answer_metrics import CJK, exact_match, token_f1
from gpt4o_lit.evaluation.text_metrics import LOWER_IS_BETTER, TEXT_METRICS, rouge, text_metric

ENGLISH = ["the", "cat", "sat", "a", "mat,", "running", "dogs", "U.S.", "3.5", "it's", "&amp;", "-"]
CHINESE = ["今天", "天气", "很好", "我们", "去", "长城", "，", "。", "GPU", "3.5", " ", "（一）"]
ROUGE = ["rouge1", "rouge2", "rougeL"]
Corpus = tuple[list[str], list[list[str]]]


def corpus(language: str, seed: int, count: int = 24, most: int = 3) -> Corpus:
    """Outputs that differ from a reference in a few words; one is empty."""
    dice = random.Random(seed)
    outputs, references = [], []
    for _ in range(count):
        tongue = dice.choice(["english", "chinese"]) if language == "mixed" else language
        words, blank = (ENGLISH, " ") if tongue == "english" else (CHINESE, "")
        first = dice.choices(words, k=dice.randint(1, 12))
        others = [dice.choices(words, k=dice.randint(1, 12)) for _ in range(dice.randrange(most))]
        output = [word if dice.random() < 0.7 else dice.choice(words) for word in first]
        outputs.append(blank.join(output))
        references.append([blank.join(each) for each in (first, *others)])
    return ["", *outputs], [[references[0][0]], *references]


def padded(references: list[list[str]]) -> list[list[str | None]]:
    """As sacreBLEU takes them: the first of all, the second of all, ..."""
    most = max(map(len, references))
    return [[each[k] if k < len(each) else None for each in references] for k in range(most)]


def score(name: str, outputs: list[str], references: list[list[str]]) -> dict[str, float]:
    metric = text_metric(name)
    return metric.scores(metric.statistics(outputs, references))


CORPORA = [corpus(kind, seed) for kind in ("english", "chinese") for seed in range(3)]


@pytest.mark.parametrize("number", range(len(CORPORA)))
def test_corpus_scores_are_those_of_sacrebleu(number: int) -> None:
    outputs, references = CORPORA[number]
    theirs, is_chinese = padded(references), number >= 3
    bleu = sacrebleu.corpus_bleu(outputs, theirs, tokenize="zh" if is_chinese else "13a").score
    chrf = sacrebleu.corpus_chrf(outputs, theirs).score
    ter = sacrebleu.corpus_ter(
        outputs, theirs, normalized=is_chinese, asian_support=is_chinese
    ).score
    assert bleu > 5
    assert score("sacrebleu", outputs, references) == {"sacrebleu": pytest.approx(bleu)}
    assert score("chrf", outputs, references) == {"chrf": pytest.approx(chrf)}
    assert score("ter", outputs, references) == {"ter": pytest.approx(ter)}


@pytest.mark.parametrize("stem", [False, True])
def test_rouge_is_that_of_rouge_score(stem: bool) -> None:
    metric, scorer = rouge(stem), rouge_scorer.RougeScorer(ROUGE, use_stemmer=stem)
    for outputs, references in CORPORA:
        # A word of Latin letters for each Chinese character is what rouge-score can read.
        spelt = [CJK.sub(lambda found: f" zz{ord(found[0])}q ", text) for text in outputs]
        asked = [
            [CJK.sub(lambda found: f" zz{ord(found[0])}q ", text) for text in each]
            for each in references
        ]
        found = metric.scores(metric.statistics(outputs, references))
        best = [scorer.score_multi(each, text) for each, text in zip(asked, spelt, strict=True)]
        for key in ROUGE:
            mean = sum(each[key].fmeasure for each in best) / len(best)
            assert mean > 0.1
            assert found[key] == pytest.approx(100 * mean)


@pytest.mark.parametrize(("name", "judge"), [("exact_match", exact_match), ("token_f1", token_f1)])
def test_answers_are_means_in_per_cent(name: str, judge: Callable[[str, list[str]], float]) -> None:
    for outputs, references in CORPORA:
        each = [judge(*pair) for pair in zip(outputs, references, strict=True)]
        found = score(name, outputs, references)
        assert found == {name: pytest.approx(100 * sum(each) / len(each))}


@pytest.mark.parametrize("name", TEXT_METRICS)
def test_statistics_of_parts_add_up_to_the_whole(name: str) -> None:
    metric = text_metric(name)
    for outputs, references in [*CORPORA, corpus("mixed", 7)]:
        whole = metric.statistics(outputs, references)
        assert whole.dtype == np.float64
        assert whole.ndim == 1
        cuts = [0, 1, 1, 12, len(outputs)]  # one part is a single example, and one is none
        parts = [
            metric.statistics(outputs[start:end], references[start:end])
            for start, end in pairwise(cuts)
        ]
        total = np.sum(parts, axis=0)
        assert metric.scores(total) == pytest.approx(metric.scores(whole), rel=1e-12)
        assert metric.signature(total) == metric.signature(whole)


@pytest.mark.parametrize("name", TEXT_METRICS)
@pytest.mark.parametrize("text", ["the cat sat on the mat today", "今天天气很好，我们去长城。"])
def test_a_reference_itself_is_best_and_nothing_is_worst(name: str, text: str) -> None:
    other = "a dog" if text.isascii() else "明日"
    best = score(name, [text, text], [[other, text], [text]])
    worst = score(name, ["", ""], [[text], [text]])
    for key in best:
        assert best[key] == pytest.approx(0 if key in LOWER_IS_BETTER else 100)
        assert worst[key] == pytest.approx(100 if key in LOWER_IS_BETTER else 0, abs=1e-9)


def test_signatures_tell_the_tokenizer_and_the_references() -> None:
    for texts, rules in (
        (["a b", "c"], "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp"),
        (["去长城 NBA", "c"], "nrefs:1|case:mixed|eff:no|tok:zh|smooth:exp"),
        (["长城", "we went there by bus"], "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp"),
    ):
        metric = text_metric("sacrebleu")
        statistics = metric.statistics(texts, [[text] for text in texts])
        assert metric.signature(statistics) == f"{rules}|version:{sacrebleu.__version__}"
    statistics = text_metric("ter").statistics(["长", "城"], [["长"], ["长", "城"]])
    assert "nrefs:var" in text_metric("ter").signature(statistics)
    assert "asian:yes" in text_metric("ter").signature(statistics)
    statistics = text_metric("chrf").statistics(["长", "城"], [["长", "x"], ["长", "城"]])
    assert text_metric("chrf").signature(statistics).startswith("nrefs:2|case:mixed|eff:yes|nc:6")
    assert "stem:yes" in rouge(stem=True).signature(statistics)


@pytest.mark.parametrize("name", TEXT_METRICS)
@pytest.mark.parametrize(
    ("outputs", "references", "match"),
    [
        (["a", "b"], [["a"]], "2 outputs and references for 1 must be equally many; give one list"),
        (["a", "b"], [["a"], []], "output 1 has 0 references and needs at least 1; give one"),
        (["a"], ["a"], r"references of output 0 \('a'\) must be a list of strings; put"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    name: str, outputs: list[str], references: list[list[str]], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        text_metric(name).statistics(outputs, references)


@pytest.mark.parametrize("name", TEXT_METRICS)
def test_no_examples_have_no_score(name: str) -> None:
    statistics = text_metric(name).statistics([], [])
    with pytest.raises(ValueError, match=f"{name} of 0 examples is not defined; give at least 1"):
        text_metric(name).scores(statistics)


def test_a_name_that_is_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="'bleu' is unknown; choose one of sacrebleu, chrf, ter"):
        text_metric("bleu")


@pytest.fixture
def _no_libraries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in ("sacrebleu.metrics", "rouge_score.rouge_scorer"):
        monkeypatch.setitem(sys.modules, module, None)
    caches = (text_metrics._scorers, text_metrics._rouge_scorer)
    for each in caches:
        each.cache_clear()
    yield
    for each in caches:
        each.cache_clear()


@pytest.mark.usefixtures("_no_libraries")
@pytest.mark.parametrize("name", ["sacrebleu", "chrf", "ter", "rouge"])
def test_a_library_that_is_missing_is_named_with_its_extra(name: str) -> None:
    with pytest.raises(ValueError, match=r"pip install 'gpt4o-lit\[metrics\]'"):
        text_metric(name).statistics(["a"], [["a"]])
