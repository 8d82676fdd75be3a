"""Templates: columns in, text out, and nothing else that a name could reach."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4o_lit.corpus.template import Template, value_of

PAIR = {"zh": "春眠", "n": 3, "answers": ["first", "second"], "translation": {"en": "spring"}}


@pytest.mark.parametrize(
    ("text", "columns", "rendered"),
    [
        ("translate to English: {zh}", ["zh"], "translate to English: 春眠"),
        ("{n}{zh}{n}", ["n", "zh"], "3春眠3"),
        ("{answers}", ["answers"], "first"),
        ("{translation.en}!", ["translation.en"], "spring!"),
        ("no column", [], "no column"),
        ("", [], ""),
        ("{{zh}} {{", [], "{zh} {"),
        ("{{{zh}}}", ["zh"], "{春眠}"),
        ("{{{{", [], "{{"),
    ],
)
def test_a_template_names_its_columns_and_renders_them(
    text: str, columns: list[str], rendered: str
) -> None:
    template = pickle.loads(pickle.dumps(Template(text)))
    assert template.columns == columns
    assert template.render(PAIR) == rendered


@given(st.text(), st.text(st.characters(blacklist_characters="{}"), min_size=1), st.text())
def test_any_text_with_its_braces_doubled_is_itself(text: str, name: str, value: str) -> None:
    literal = text.replace("{", "{{").replace("}", "}}")
    template = Template(f"{literal}{{{name}}}{literal}")
    assert template.columns == [name]
    assert template.render({name: value}) == f"{text}{value}{text}"


def test_braces_in_a_value_are_text() -> None:
    assert Template("{a} {b}").render({"a": "{b}", "b": "}}{{"}) == "{b} }}{{"


def test_a_column_with_dots_in_its_name_comes_before_what_is_nested() -> None:
    assert value_of({"a.b": 1, "a": {"b": 2, "c.d": 3}}, "a.b") == 1
    assert value_of({"a.b": 1, "a": {"b": 2, "c.d": 3}}, "a.c.d") == 3


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{zh", r"has at character 1 a single \{; write \{\{ for the sign itself"),
        ("zh} {zh}", r"has at character 3 a single \}; write \}\}"),
        ("{a{b}}", r"has at character 1 a single \{"),
        ("to {}", r"has at character 4 a \{\} without a name"),
    ],
)
def test_a_lone_brace_is_named_on_birth(text: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Template(text)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{zhh}", r"no column 'zhh' \(there are 'zh', 'n', .*\); did you mean 'zh'\?"),
        ("{translation.eng}", r"did you mean 'translation.en'\?"),
        ("{translation}", r"'translation' holds an object; choose one of \{translation.en\}"),
        ("{qqq}", r"no column 'qqq' .*; choose one of them"),
        ("{zh.upper}", r"no column 'zh.upper'"),
        ("{zh.__class__}", r"no column 'zh.__class__'"),
        ("{n.real}", r"no column 'n.real'"),
        ("{zh!r}", r"no column 'zh!r'"),
        ("{n:>9}", r"no column 'n:>9'"),
        ("{answers[0]}", r"no column 'answers\[0\]'"),
        ("{translation.}", r"no column 'translation.'"),
    ],
)
def test_what_is_no_column_is_refused_with_those_there_are(text: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Template(text).render(PAIR)


@pytest.mark.parametrize(
    ("value", "match"),
    [(None, "is null"), ([], "is an empty list"), ([1], "is list"), (b"x", "is bytes")],
)
def test_what_is_no_text_is_refused(value: object, match: str) -> None:
    with pytest.raises(ValueError, match=f"'a' {match}; a template takes text"):
        Template("{a}").render({"a": value})


def test_a_row_without_columns_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no column 'a' \(there are none\)"):
        Template("{a}").render({})
