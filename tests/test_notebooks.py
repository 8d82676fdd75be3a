"""Every notebook runs from top to bottom; what it asserts holds."""

import json
import warnings
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


BRIEF = "attention_by_hand"
"""The others train something, for less than two minutes each."""


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem == BRIEF else pytest.mark.slow)
        for path in NOTEBOOKS
    ],
)
def test_a_notebook_runs(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            code = compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # fonts; a window that is not there
                exec(code, names)
            assert not cell["outputs"], "save notebooks without outputs"


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS
