"""What the pages of docs/ tell a reader to write and to run works as it stands there."""

import csv
import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt4o_lit.__main__ import main

DOCS = Path(__file__).parent.parent / "docs"
SHORT = "--trainer.max_steps 4 --trainer.val_check_interval 4 --trainer.limit_val_batches 1"
SHORT += " --trainer.log_every_n_steps 2"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.S)


@pytest.fixture
def lab(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, whose module is forgotten afterwards."""
    monkeypatch.chdir(workshop)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield workshop
    sys.modules.pop("lab", None)
    importlib.invalidate_caches()


@pytest.mark.parametrize(
    ("page", "column"),
    [
        ("add_a_callback.md", "weights/decoder"),
        ("add_an_objective.md", "val/loss"),
        ("add_a_task.md", "train/loss"),
    ],
)
def test_a_page_can_be_followed_to_the_letter(page: str, column: str, lab: Path) -> None:
    (code,) = blocks(page, "python")
    (lab / "lab.py").write_text(code, encoding="utf-8")
    for text in blocks(page, "yaml"):
        name = "lab.yaml" if text.find("name: lab") >= 0 else "with_norms.yaml"
        (lab / name).write_text(text, encoding="utf-8")
    (command,) = blocks(page, "bash")
    run = lab / page.removesuffix(".md")
    assert main([*shlex.split(command)[1:], *SHORT.split(), "--run_dir", str(run)]) == 0
    with (run / "metrics.csv").open(encoding="utf-8") as lines:
        values = [float(row[column]) for row in csv.DictReader(lines) if row[column]]
    assert values
    assert all(0 < value < 1e4 for value in values)
