"""Hooks of MkDocs: the pages of the reference, and those of the project that lie outside docs/."""

import re
import shutil
from pathlib import Path
from typing import Any

import classes
import fields
import packaged
import verbs
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent.parent
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/RESULTS.md")
"""Files of the project that are pages too."""

pages: dict[str, str] = {}


@event_priority(100)  # before mkdocstrings looks where the package is
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the reference, and give it a place in the navigation."""
    pages.clear()
    nav: list[Any] = []
    for title, room in (
        ("Verbs", verbs),
        ("Packaged configs", packaged),
        ("Fields of configs", fields),
        ("Classes", classes),
    ):
        made = room.pages()
        pages.update(made)
        nav.append({title: list(made)})
    index = "reference/index.md"
    pages[index] = INDEX
    config.nav = [*(config.nav or []), {"Reference": [index, *nav]}]
    python = config.plugins["mkdocstrings"].config.handlers["python"]
    python["paths"] = [str(classes.tree(ROOT))]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what was made, and what lies outside docs/."""
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    for name in OUTSIDE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    for picture in sorted((ROOT / "benchmarks").glob("*.png")):
        name = f"benchmarks/{picture.name}"
        files.append(File.generated(config, name, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links that are right in the repository be right in the site, where docs/ is the root."""
    if page.file.src_uri in OUTSIDE:
        return re.sub(r"\]\((\.\./)?docs/", r"](\1", markdown)
    return re.sub(r"\]\(((?:\.\./)*)\.\./(?=benchmarks/|C[A-Z]+\.md)", r"](\1", markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Forget the copy of the package that docstrings were read from."""
    (folder,) = config.plugins["mkdocstrings"].config.handlers["python"]["paths"]
    shutil.rmtree(folder)


INDEX = """# Reference

All of this is made from the program when the site is built.

- **Verbs**: what `gpt4o-lit VERB --help` says.
- **Packaged configs**: experiments, overlays, sizes, recipes, grids, launch scripts, as they are.
- **Fields of configs**: every key that YAML or a flag may set: its type, its default and one line.
- **Classes**: what Python code imports, from its docstrings.
"""
