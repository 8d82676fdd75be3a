"""The folder of a corpus: what in it is ours, how it is read and written, and how it is emptied."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt4o_lit.corpus.shards import write_whole

PLAN, MANIFEST, LOCK = "plan.json", "manifest.json", ".lock"
SHARDS, TOKENIZER = "shards", "tokenizer"
# Each name that is ever written, at the top and in the two folders below; the rest is not ours.
PART = r"(\.\d+\.part)?"
OWN = {
    ".": re.compile(rf"\.lock|(plan|manifest)\.json{PART}|shards|tokenizer"),
    SHARDS: re.compile(rf"(train|valid|test)-\d{{6,}}\.bin{PART}"),
    TOKENIZER: re.compile(r"tokenizer\.(json|model)"),
}


def check_folder(folder: Path) -> None:
    """ValueError unless a corpus may be written here: nothing is there, or one of ours."""
    if folder.is_file():
        raise ValueError(f"directory {folder} is a file; give a folder")
    if folder.is_dir() and not _is_ours(folder):
        raise ValueError(
            f"directory {folder} holds other files than those of a corpus; give a new or an empty "
            "folder"
        )


def _is_ours(folder: Path) -> bool:
    if _is_plan(read_json(folder / PLAN)):
        return True
    names = {path.name for path in folder.iterdir()}
    # Another process may have finished between these two looks.
    if PLAN in names:
        return _is_plan(read_json(folder / PLAN))
    # What a build leaves that was killed before it had a plan; the folder of shards comes first.
    if MANIFEST in names or (TOKENIZER in names and SHARDS not in names):
        return False
    return all(OWN[place].fullmatch(path.name) for place, path in _files(folder))


def _is_plan(content: dict[str, Any] | None) -> bool:
    return content is not None and {"format", "config", "tokenizer", "sources"} <= content.keys()


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for place in OWN:
        if (folder / place).is_dir():
            yield from ((place, path) for path in sorted((folder / place).iterdir()))


def clear(folder: Path) -> None:
    """Take away an old corpus; the manifest goes first, so nobody opens what is half gone."""
    for name in (MANIFEST, PLAN):
        (folder / name).unlink(missing_ok=True)
    for place, path in _files(folder):
        if place != "." and OWN[place].fullmatch(path.name):
            path.unlink()


def clear_parts(folder: Path) -> None:
    """Take away what a killed build had not finished writing."""
    for place, path in _files(folder):
        if path.suffix == ".part" and OWN[place].fullmatch(path.name):
            path.unlink()


def read_json(path: Path) -> dict[str, Any] | None:
    """What `write_json` wrote; None where there is no such file, or another one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """JSON with a line for each key: readable, and much faster than indent=1 on many sources."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
    write_whole(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())
