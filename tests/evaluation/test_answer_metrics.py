"""Answers are judged as the scripts of SQuAD and MLQA judge them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4o_lit.evaluation.answer_metrics import answer_tokens, code_match, exact_match, token_f1
from tests.reference.answer_twins import chinese_tokens, f1_twin, squad_tokens

PIECES = ["The", "an", "A", "cat", "dog's", "b-c", " ", "  ", "\n", ".", "?", "“", "”", "3", "é"]
CHINESE = ["长", "城", "中国", "。", "，", "《", "＋", "“", "”", " ", "NBA", "3.5", "x"]
texts = st.lists(st.sampled_from(PIECES)).map("".join)
chinese_texts = st.lists(st.sampled_from(CHINESE)).map(lambda pieces: "汉" + "".join(pieces))


@given(texts, st.lists(texts, min_size=1, max_size=3))
def test_answers_are_judged_as_by_squad(output: str, references: list[str]) -> None:
    mine, theirs = squad_tokens(output), [squad_tokens(each) for each in references]
    assert answer_tokens(output) == mine
    assert exact_match(output, references) == any(mine == each for each in theirs)
    best = max(f1_twin(mine, each) for each in theirs)
    assert token_f1(output, references) == pytest.approx(best, abs=1e-12)


@given(chinese_texts, st.lists(chinese_texts, min_size=1, max_size=3))
def test_chinese_answers_are_judged_by_characters(output: str, references: list[str]) -> None:
    mine, theirs = chinese_tokens(output), [chinese_tokens(each) for each in references]
    assert answer_tokens(output) == mine
    assert exact_match(output, references) == any(mine == each for each in theirs)
    best = max(f1_twin(mine, each) for each in theirs)
    assert token_f1(output, references) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize(
    ("output", "references", "exact", "f1"),
    [
        ("The cat.", ["a dog", "cat"], 1, 1),
        ("the big cat", ["cat"], 0, 2 / 3),
        ("", ["cat"], 0, 0),
        ("", ["the"], 1, 0),  # as SQuAD v1.1 has it
        ("“长城”。", ["长 城"], 1, 1),
        ("NBA。", ["nba"], 1, 1),
        ("A股", ["股"], 0, 0.5 / 0.75),  # no article
        ("北京大学", ["北京"], 0, 2 / 3),
        ("東京タワー", ["東京"], 0, 4 / 7),
    ],
)
def test_answers_of_which_the_score_is_known(
    output: str, references: list[str], exact: float, f1: float
) -> None:
    assert exact_match(output, references) == exact
    assert token_f1(output, references) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("output", "reference", "same"),
    [
        ("def f(x):\n    return x\n", "def f(x):\n\treturn x", 1),
        ("x = 1", "x=1", 0),
        ("X = 1", "x = 1", 0),
        ("the x", "x", 0),
        ("", "\n", 1),
    ],
)
def test_code_matches_but_for_how_many_blanks(output: str, reference: str, same: float) -> None:
    assert code_match(output, ["other", reference]) == same
