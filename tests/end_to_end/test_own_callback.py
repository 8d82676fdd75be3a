"""A callback in a file of the user's own: in fit, in each run of an ablation, and in its report."""

import csv
import time
from pathlib import Path

import pytest
import yaml

from gpt4o_lit.__main__ import main
from gpt4o_lit.experiments.record import Record
from tests.end_to_end.ablation_survival import ablate
from tests.end_to_end.survival import ended

FILE = '''
import lightning


class Foo(lightning.Callback):
    """Logs a score.

    Args:
        factor: Of the step.
    """

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def on_validation_epoch_end(self, trainer, task):
        task.log("foo/score", self.factor * trainer.global_step)


class Bar(Foo):
    """Logs it backwards."""

    def __init__(self) -> None:
        super().__init__(-1.0)
'''


VARIANTS = {
    "backwards": {"callbacks": {"swap": {"Foo": "my_callbacks.Bar"}}},
    "double": {"callbacks.Foo.factor": 2.0},
    "added": {"callbacks": {"remove": ["Foo"], "add": [
        {"class_path": "my_callbacks.Foo", "init_args": {"factor": 3.0}}]}},
}  # fmt: skip
SCORES = {"backwards": -3.0, "double": 6.0, "added": 9.0}


@pytest.mark.parametrize(
    "names", [["backwards"], pytest.param([*VARIANTS], marks=pytest.mark.slow)]
)
def test_it_works_in_ablate_report_and_fit(names: list[str], home: Path, config: Path) -> None:
    Path("my_callbacks.py").write_text(FILE, encoding="utf-8")
    overlay = {"trainer": {"callbacks+": [{"class_path": "my_callbacks.Foo"}]}}
    Path("foo.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    grid = {
        "base": ["tiny.yaml", "foo.yaml"],
        "flags": {"model_card.measure": False, "samples.enabled": False, "trainer.max_steps": 3},
        "metric": "foo/score",
        "mode": "max",
        "variants": {name: VARIANTS[name] for name in names},
        "compare_to": names[0],
    }
    Path("mine.yaml").write_text(yaml.safe_dump(grid), encoding="utf-8")
    code = ended(ablate(Path("mine.yaml"), "--dir", "mine"), time.monotonic() + 300)
    assert code == 0, Path("run.log").read_text(encoding="utf-8")
    scores = {name: Record(Path(f"mine/{name}/seed_0")).last["foo/score"] for name in names}
    assert scores == {name: SCORES[name] for name in names}
    assert main(["report", "mine", "--out", "told"]) == 0
    with Path("told/variants.csv").open(encoding="utf-8") as file:
        means = {row["variant"]: float(row["mean"]) for row in csv.DictReader(file)}
    assert means == scores
    assert "backwards" in Path("told/report.md").read_text(encoding="utf-8")
    # What a variant is can be fitted by itself too.
    given = ("--config", f"mine/{names[0]}/variant.yaml", "--run_dir", "again")
    assert main(["fit", *given]) == 0
    assert Record(Path("again")).last["foo/score"] == scores[names[0]]
