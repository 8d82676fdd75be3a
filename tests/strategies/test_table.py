"""docs/strategies.md says what the classes declare and what the tests run."""

from pathlib import Path

import pytest
from lightning.pytorch.callbacks import EMAWeightAveraging

from gpt4o_lit import optim, tasks
from gpt4o_lit.callbacks.combining import ours_by_name
from gpt4o_lit.optim import OptimizerRecipe
from gpt4o_lit.strategies import FSDP2, DeepSpeed, TensorParallel
from gpt4o_lit.strategies.needs import NEEDS, unmet
from tests.end_to_end.test_strategies import CELLS, LOOSER

TEXT = Path(__file__).parents[2].joinpath("docs/strategies.md").read_text(encoding="utf-8")
LACKS = {
    "ddp": (),
    "fsdp2": FSDP2.lacks,
    "tensor_parallel": TensorParallel.lacks,
    "deepspeed": DeepSpeed.lacks,
}


def table(title: str) -> dict[str, dict[str, str]]:
    """Rows by name, each with its cells by column, of the first table behind a title."""
    lines = TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0].splitlines()
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    (_, *columns), _, *body = rows
    return {name: dict(zip(columns, cells, strict=True)) for name, *cells in body}


def classes() -> dict[str, type]:
    """All that may need something of a strategy."""
    recipes = {name: getattr(optim, name) for name in optim.__all__}
    kinds = {name: getattr(tasks, name) for name in tasks.__all__}
    found = ours_by_name() | recipes | kinds | {"EMAWeightAveraging": EMAWeightAveraging}
    return {name: kind for name, kind in found.items() if isinstance(kind, type)}


ROWS = table("Callbacks") | table("Optimizers and tasks")


@pytest.mark.parametrize("name", ROWS)
def test_a_row_says_who_is_refused(name: str) -> None:
    expected = {
        column: "no" if unmet(classes()[name], lacks) else "yes" for column, lacks in LACKS.items()
    }
    assert ROWS[name] == expected


def test_who_needs_anything_has_a_row() -> None:
    assert {name for name, kind in classes().items() if unmet(kind, NEEDS)} <= set(ROWS)
    recipes = {name for name, kind in classes().items() if issubclass(kind, OptimizerRecipe)}
    assert recipes - {"OptimizerRecipe"} <= set(ROWS)


@pytest.mark.parametrize(("feature", "cells"), table("Settings").items())
def test_what_is_said_to_equal_one_process_is_run(feature: str, cells: dict[str, str]) -> None:
    run = {strategy.partition("_zero")[0] for strategy in CELLS.get(feature, ())}
    for column, cell in cells.items():
        assert (cell in ("=", "~")) == (column in run), column
    assert ("~" in cells.values()) == (feature in LOOSER)


def test_compression_that_can_be_on_is_run() -> None:
    for name in {"Distillation", "Int8Training", "LoRA", "QuantizationAwareTraining", "Stability"}:
        run = {strategy.partition("_zero")[0] for strategy in CELLS[name]}
        assert run == {column for column, cell in ROWS[name].items() if cell == "yes"}, name
