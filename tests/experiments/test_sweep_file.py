"""What a sweep file says, and every way to get it wrong told in one line."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from gpt4o_lit.experiments.sweep import first_point, require_same_question
from gpt4o_lit.experiments.sweep_file import Asha, Range, Sweep, read_sweep

SEARCH = {"a.lr": {"low": "1e-4", "high": 0.1, "log": True}, "a.kind": ["x", None]}


def sweep(folder: Path, **values: Any) -> Sweep:
    path = folder / "mine.yaml"
    given = {"base": "quickstart", "search": SEARCH} | values
    path.write_text(yaml.safe_dump(given, sort_keys=False), encoding="utf-8")
    return read_sweep(path)


def test_a_sweep_has_ranges_choices_and_an_early_end(tmp_path: Path) -> None:
    found = sweep(tmp_path, asha={"first": 5}, search=SEARCH | {"n": {"low": 1, "high": 4}})
    assert found.search == {
        "a.lr": Range(low=1e-4, high=0.1, log=True),
        "a.kind": ["x", None],
        "n": Range(low=1, high=4),
    }
    assert found.asha == Asha(first=5, factor=3)
    assert (found.name, found.trials, found.sampler) == ("mine", 20, "tpe")
    assert first_point(found) == {"a.lr": 1e-4, "a.kind": "x", "n": 1}
    (changes,) = found.grid(first_point(found)).all_variants.values()
    assert changes.flags == ["--a.lr=0.0001", "--a.kind=x", "--n=1"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"serach": {}}, "serach is no key of a sweep file; did you mean 'search'"),
        ({"search": {}}, "search is missing"),
        ({"sampler": "grid"}, "must be tpe or random"),
        ({"trials": 0}, "whole number of at least 1"),
        ({"asha": {"factor": 3}}, "needs its first steps"),
        (
            {"asha": {"first": 5, "factor": 1}},
            "asha.factor .1. must be a whole number",
        ),
        ({"trials": True}, "whole number of at least 1"),
        ({"search": [1]}, "must map keys to ranges"),
        ({"seed": "x"}, "seed .'x'. must be a whole number"),
        ({"search": {"a": 3}}, "must be a list of choices or {low"),
        ({"search": {"a": {"low": 1, "hgih": 2}}}, "must be a list of choices or {low"),
        ({"search": {"a": {"low": 1, "high": 2, "logg": True}}}, "did you mean 'log'"),
        ({"search": {"a": {"low": 2, "high": 1}}}, "low must be below high"),
        ({"search": {"a": {"low": 0, "high": 1, "log": True}}}, "with log above 0"),
        ({"search": {"a": {"low": "x", "high": 1}}}, "is no number"),
    ],
)
def test_what_is_no_sweep_file_is_one_line(
    values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        sweep(tmp_path, **values)
    assert "\n" not in str(raised.value)


def test_trials_of_another_question_are_not_mixed_with_these(tmp_path: Path) -> None:
    search = {"a.lr": {"low": 1, "high": 2}, "callbacks.Foo.x": [1, 2]}
    asked = sweep(tmp_path, search=search)
    config = {"a": {"lr": 1}, "trainer": {"max_steps": 5, "callbacks": [_foo(1)]}}
    require_same_question(asked, tmp_path, config)
    searched = {"a": {"lr": 0.5}, "trainer": {"max_steps": 5, "callbacks": [_foo(3)]}}
    require_same_question(asked, tmp_path, searched)  # ranges may become wider
    longer = {"a": {"lr": 1}, "trainer": {"max_steps": 9, "callbacks": [_foo(1)]}}
    with pytest.raises(ValueError, match=r"has trials with trainer.max_steps 5, which is 9 now"):
        require_same_question(asked, tmp_path, longer)
    other = sweep(tmp_path, search=search, metric="val/accuracy")
    with pytest.raises(ValueError, match=r"has trials with metric val/loss, which is val/acc"):
        require_same_question(other, tmp_path, config)


def _foo(x: int) -> dict[str, Any]:
    return {"class_path": "lab.Foo", "init_args": {"x": x}}
