"""The documentation builds strictly, needs no network, has every verb, config, key and class."""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from gpt4o_lit import configs
from gpt4o_lit.__main__ import VERBS
from tests.documents import ROOT

fields: Any = importlib.import_module("fields")
classes: Any = importlib.import_module("classes")
KINDS = [kind for page in fields.OPEN for kind in fields._classes(page)]
SHARED = [kind for kinds in fields._shared(KINDS).values() for kind in kinds]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does: a warning, such as of a broken link, ends it."""
    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder))
    assert config.strict
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    return folder


@pytest.mark.parametrize("link", ["gone.md", "index.md#gone", "../README.md", "/gone"])
def test_a_link_or_an_anchor_that_leads_nowhere_ends_the_build(link: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Start\n\n[on]({link})\n", encoding="utf-8")
    here = {"docs_dir": str(tmp_path / "docs"), "site_dir": str(tmp_path / "site")}
    config = load_config(str(ROOT / "mkdocs.yml"), hooks=[], plugins=[], nav=None, **here)
    with pytest.raises(Abort, match="strict mode"):
        build(config)


def test_every_verb_and_config_has_its_place(site: Path) -> None:
    for verb in VERBS:
        text = (site / "reference" / "verbs" / f"{verb}.html").read_text(encoding="utf-8")
        assert f"usage: gpt4o-lit {verb}" in text
    listed = "".join(
        path.read_text(encoding="utf-8") for path in (site / "reference" / "configs").glob("*.html")
    )
    assert all(f">{name}<" in listed or f">{name}" in listed for name in configs.names())


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 90
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loads = re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"']?([^\"' >]+)", text
        )
        foreign = [each for each in loads if each.startswith(("http:", "https:", "//"))]
        assert not foreign, f"{page}: {foreign}"
    assert (site / "search" / "search_index.js").stat().st_size > 100_000


def test_every_public_class_is_told_of(site: Path) -> None:
    for room in classes.ROOMS:
        text = (site / "reference" / "classes" / f"{room}.html").read_text(encoding="utf-8")
        missing = [
            path for path in classes.public(f"gpt4o_lit.{room}") if f'id="{path}"' not in text
        ]
        assert not missing, missing


@pytest.mark.parametrize("kind", [*KINDS, *SHARED], ids=lambda kind: kind.__name__)
def test_fields_are_those_that_the_parser_of_configs_knows(kind: type) -> None:
    shown = {field.name: field for field in fields.fields_of(kind)}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, fail_untyped=False)
    known = {action.dest.partition(".")[0]: action for action in parser._actions}
    known = {name: action for name, action in known.items() if name != "help"}
    assert set(shown) == set(known)
    for name, action in known.items():
        if action.dest == name and isinstance(action.default, str | int | float | bool | None):
            parameter = inspect.signature(kind).parameters[name].default
            if parameter is not inspect.Parameter.empty and not isinstance(parameter, type):
                assert shown[name].default == fields.spelled_value(action.default)


@pytest.mark.parametrize("kind", [*KINDS, *SHARED], ids=lambda kind: kind.__name__)
def test_every_field_has_a_line(kind: type) -> None:
    assert [field.name for field in fields.fields_of(kind) if not field.told] == []


def test_dataclasses_of_configs_are_found() -> None:
    names = {kind.__name__ for kind in SHARED}
    assert {"TransformerConfig", "StackConfig", "CorpusConfig", "SparsitySchedule"} <= names
    assert all(dataclasses.is_dataclass(kind) for kind in SHARED)
