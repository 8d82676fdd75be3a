"""A page for each room of the package: its public names, from their docstrings by mkdocstrings."""

import importlib
import inspect
import pkgutil
import shutil
import tempfile
from pathlib import Path

FOLDER = "reference/classes"
ROOMS = (
    "model", "objectives", "optim", "tokenizer", "corpus", "data", "tasks", "callbacks",
    "compression", "strategies", "generation", "evaluation", "explanation", "interop",
    "experiments", "launch",
)  # fmt: skip


def pages() -> dict[str, str]:
    """By path, the index first."""
    index = ["# Classes", "", "What `import gpt4o_lit.ROOM` gives, room by room.", "", "| room | |"]
    index.append("|---|---|")
    found = {f"{FOLDER}/index.md": ""}
    for room in ROOMS:
        module = importlib.import_module(f"gpt4o_lit.{room}")
        first = (module.__doc__ or "").strip().partition("\n")[0]
        index.append(f"| [`{room}`]({room}.md) | {first} |")
        lines = [f"# gpt4o_lit.{room}", "", first, ""]
        for path in public(f"gpt4o_lit.{room}"):
            lines += [f"::: {path}", ""]
        found[f"{FOLDER}/{room}.md"] = "\n".join(lines)
    found[f"{FOLDER}/index.md"] = "\n".join(index)
    return found


def public(room: str) -> list[str]:
    """The classes and functions that a room offers; where it lists none, those of its modules."""
    module = importlib.import_module(room)
    names = getattr(module, "__all__", None)
    if names is not None:
        return [f"{room}.{name}" for name in names if _is_told(getattr(module, name))]
    found = []
    for each in pkgutil.iter_modules(module.__path__):
        part = importlib.import_module(f"{room}.{each.name}")
        own = {name: value for name, value in vars(part).items() if not name.startswith("_")}
        found += [
            f"{part.__name__}.{name}"
            for name, value in own.items()
            if getattr(value, "__module__", "") == part.__name__ and _is_told(value)
        ]
    return found


def _is_told(value: object) -> bool:
    return (inspect.isclass(value) or inspect.isfunction(value)) and bool(inspect.getdoc(value))


def tree(root: Path) -> Path:
    """A copy of the package as it is when installed, callbacks in their place, to be read."""
    folder = Path(tempfile.mkdtemp(prefix="gpt4o-lit-docs-"))
    for source, target in (("gpt4o_lit", "gpt4o_lit"), ("callbacks", "gpt4o_lit/callbacks")):
        shutil.copytree(
            root / source, folder / target, ignore=shutil.ignore_patterns("__pycache__")
        )
    return folder
