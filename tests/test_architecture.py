"""The floors of the house, read from the imports: they run down, never up, never in a circle."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOOR_1 = {"model", "objectives", "optim", "tokenizer"}
ALLOWED: dict[str, set[str]] = {
    **{room: set() for room in FLOOR_1},
    "corpus": {"tokenizer"},
    "generation": {"model", "tokenizer"},
    "interop": {"model", "tokenizer", "run_directory"},
    "strategies": {"model"},
    "compression": {"model"},
    "evaluation": {"model", "tokenizer", "objectives", "generation", "interop", "compression"},
    "explanation": {"model", "tokenizer", "generation"},
    "data": {"corpus", "tokenizer"},
    "tasks": {"model", "objectives", "optim", "strategies", "interop"},
    "callbacks": {
        "compression",
        "generation",
        "evaluation",
        "explanation",
        "interop",
        "model",
        "objectives",
        "run_directory",
        "strategies",
    },
    "experiments": {
        "callbacks",
        "cli",
        "configs",
        "data",
        "evaluation",
        "interop",
        "model",
        "parse_errors",
        "run_directory",
        "tasks",
    },
    "configs": set(),
    "run_directory": set(),
    "parse_errors": set(),
}
LIGHTNING_ROOMS = {"tasks", "data", "callbacks", "strategies", "cli", "experiments"}
SOURCES = [*(ROOT / "gpt4o_lit").rglob("*.py"), *(ROOT / "callbacks").rglob("*.py")]


def room_of(path: Path) -> str:
    """The room a file stands in: its folder, or its own name at the top of the package."""
    parts = path.relative_to(ROOT).parts
    if parts[0] == "callbacks":
        return "callbacks"
    return parts[1].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_run_down(path: Path) -> None:
    room = room_of(path)
    rooms = {name.split(".")[1] for name in imports_of(path) if name.startswith("gpt4o_lit.")} - {
        room,
        "__version__",
    }
    if room in ALLOWED:
        assert rooms <= ALLOWED[room], f"{room} must not import {rooms - ALLOWED[room]}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_lightning_stays_in_its_rooms(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports_of(path)}
    used = roots & {"lightning", "pytorch_lightning"}
    assert not used or room_of(path) in LIGHTNING_ROOMS


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_stay_within_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_the_package_itself_imports_nothing() -> None:
    assert imports_of(ROOT / "gpt4o_lit" / "__init__.py") == set()
