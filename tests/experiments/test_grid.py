"""What a grid file says: its variants, and every way to get it wrong told in one line."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from gpt4o_lit.experiments.changes import Changes, edited, read_changes
from gpt4o_lit.experiments.grid import Grid, find_grid, read_grid

PRUNING = {"class_path": "gpt4o_lit.callbacks.MagnitudePruning"}
SAMPLES = {"class_path": "lab.Norms", "init_args": {"every": 2}}


def grid(folder: Path, **values: Any) -> Grid:
    path = folder / "mine.yaml"
    text = yaml.safe_dump({"base": "quickstart"} | values, sort_keys=False)
    path.write_text(text, encoding="utf-8")
    return read_grid(path)


def test_a_variant_may_lay_overlays_and_set_keys(tmp_path: Path) -> None:
    body = {"config": ["with/muon", "with/bf16"], "trainer.max_steps": 4, "data.x": None}
    found = grid(tmp_path, variants={"fast": body}, seeds=[3, 1], flags={"trainer.max_steps": 9})
    assert found.name == "mine"
    assert found.seeds == (3, 1)
    assert list(found.all_variants) == ["base", "fast"]
    assert found.base.flags == ["--config", "quickstart", "--trainer.max_steps=9"]
    expected = ["--config", "with/muon", "--config", "with/bf16"]
    expected += ["--trainer.max_steps=4", "--data.x=null"]
    assert found.variants["fast"].flags == expected


def test_a_full_grid_has_each_value_with_each(tmp_path: Path) -> None:
    found = grid(tmp_path, grid={"a.lr": [1, 2], "a.kind": ["x.Y", "z"], "config": [None, "w/m"]})
    assert len(found.variants) == 8
    assert found.variants["lr=2,kind=Y,config=m"].flags == [
        "--config", "w/m", "--a.lr=2", "--a.kind=x.Y",
    ]  # fmt: skip
    assert found.variants["lr=1,kind=z,config=none"].configs == ()


def test_paired_lists_go_side_by_side(tmp_path: Path) -> None:
    found = grid(tmp_path, paired={"a.lr": [1, 2], "b.lr": [3, 4]})
    assert {name: each.keys for name, each in found.variants.items()} == {
        "a.lr=1,b.lr=3": {"a.lr": 1, "b.lr": 3},
        "a.lr=2,b.lr=4": {"a.lr": 2, "b.lr": 4},
    }


def test_one_at_a_time_changes_one_key_in_each(tmp_path: Path) -> None:
    named = {"big": {"d": 9, "h": 3}, "small": {"d": 1}}
    found = grid(tmp_path, one_at_a_time={"a.lr": [1, 2], "size": named}, variants={"v": {"k": 1}})
    assert {name: dict(each.keys) for name, each in found.variants.items()} == {
        "v": {"k": 1},
        "lr=1": {"a.lr": 1},
        "lr=2": {"a.lr": 2},
        "size=big": {"d": 9, "h": 3},
        "size=small": {"d": 1},
    }


def test_who_is_compared_to_takes_the_place_of_the_base(tmp_path: Path) -> None:
    found = grid(tmp_path, variants={"dense": {"a": 1}, "half": {"a": 2}}, compare_to="dense")
    assert list(found.all_variants) == ["dense", "half"]


def test_callbacks_are_added_removed_swapped_and_changed() -> None:
    changes = read_changes(
        {
            "callbacks": {
                "add": ["WandaPruning", {"class_path": "lab.X", "init_args": {"a": 1}}],
                "remove": "Norms",
                "swap": {"MagnitudePruning": "MovementPruning"},
            },
            "callbacks.MovementPruning.schedule.final": 0.9,
        }
    )
    before = [dict(PRUNING), dict(SAMPLES)]
    assert edited(before, changes) == [
        {
            "class_path": "gpt4o_lit.callbacks.MovementPruning",
            "init_args": {"schedule": {"final": 0.9}},
        },
        {"class_path": "gpt4o_lit.callbacks.WandaPruning"},
        {"class_path": "lab.X", "init_args": {"a": 1}},
    ]
    assert before == [PRUNING, SAMPLES]
    assert len(changes.told()) == 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"variant": {}}, "variant is no key of a grid file; did you mean 'variants'?"),
        ({}, "nothing varies; write one of variants"),
        ({"variants": {}}, "variants is empty"),
        ({"base": None, "variants": {"a": {}}}, "base is missing"),
        ({"variants": {"a b": {}}}, "'a b' names a folder"),
        ({"variants": {"../a": {}}}, "'../a' names a folder"),
        ({"variants": {"base": {"a": 1}}}, "rename the variant"),
        ({"variants": {"a": [1]}}, "variant a: .* must be a mapping"),
        ({"variants": {"a": {"seed_everything": 3}}}, "list seeds under `seeds`"),
        ({"variants": {"a": {"callbacks": {"ad": []}}}}, "did you mean 'add'?"),
        ({"variants": {"a": {"k": 1}}, "mode": "lowest"}, "must be min or max"),
        ({"variants": {"a": {"k": 1}}, "seeds": [0, 0]}, "has one twice"),
        ({"variants": {"a": {"k": 1}}, "seeds": ["x"]}, "must be whole numbers"),
        ({"variants": {"dense": {}}, "compare_to": "dens"}, "did you mean 'dense'?"),
        ({"paired": {"a": [1, 2], "b": [1]}}, "equally long; a has 2, b has 1"),
        ({"grid": {"a": 3}}, "must be a list of values"),
        ({"grid": {"a": [[1, 2], "1+2"]}}, "two values have one name"),
        ({"grid": {"x": {"n": {"k": 1}}, "y": {"n": {"k": 2}}}}, "k is changed twice"),
    ],
)
def test_what_is_no_grid_file_is_one_line(
    values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        grid(tmp_path, **values)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: x\nvariants: {a: {k: 1}, a: {k: 2}}", "'a' stands twice in the mapping of line 2"),
        ("base: [x\n", "is no YAML"),
        ("- base", "a grid file is a mapping"),
    ],
)
def test_what_yaml_would_swallow_is_told(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_grid(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (Changes(remove=("MagnitudePrunin",)), "did you mean 'MagnitudePruning'?"),
        (Changes(remove=("Evaluate",)), "no callback Evaluate to remove; there are Magnitude"),
        (Changes(arguments={"Norms": 1}), "write callbacks.Norms.ARGUMENT"),
    ],
)
def test_a_callback_that_is_not_there_is_told(changes: Changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        edited([dict(PRUNING), dict(SAMPLES)], changes)


def test_a_packaged_grid_goes_by_its_name_and_the_nearest_is_named() -> None:
    assert find_grid("qat_start") == find_grid("grid/qat_start")
    with pytest.raises(FileNotFoundError, match="did you mean 'grid/qat_start'"):
        find_grid("qat_strat")
