"""What the documentation tells a reader to write and to run works as it stands there."""

import csv
import importlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt4o_lit.__main__ import main
from tests.documents import (
    PAGES,
    Command,
    commands_in,
    files_in,
    generated,
    require_readable,
    text_of,
)

SHORT = "--trainer.max_steps 4 --trainer.val_check_interval 4 --trainer.limit_val_batches 1"
SHORT += " --trainer.log_every_n_steps 2"
WITH_COMMANDS = [page for page in [*PAGES, "README.md"] if commands_in(text_of(page))]


@pytest.fixture
def lab(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, whose module is forgotten afterwards."""
    monkeypatch.chdir(workshop)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield workshop
    sys.modules.pop("lab", None)
    importlib.invalidate_caches()


def write_files(page: str, folder: Path) -> None:
    """What the page has its reader write."""
    for name, text in files_in(text_of(page)).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def test_every_page_of_how_to_shows_commands() -> None:
    shown = {page for page in PAGES if page.startswith("docs/how_to/")}
    assert shown - set(WITH_COMMANDS) == {"docs/how_to/index.md"}


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_every_command_of_a_page_is_one_that_the_program_reads(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # a page's own module
    write_files(page, tmp_path)
    assert not mistakes_in(commands_in(text_of(page)))
    sys.modules.pop("lab", None)


@pytest.mark.parametrize("kind", ["verbs", "configs"])
def test_every_command_that_verbs_and_configs_show_is_one_that_the_program_reads(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pages = {path: text for path, text in generated().items() if f"/{kind}/" in path}
    commands = [command for text in pages.values() for command in commands_in(text)]
    assert len(commands) > 20
    assert not mistakes_in(commands)


def mistakes_in(commands: list[Command]) -> str:
    """Each command that the program would not read, and why."""
    mistakes = []
    for command in commands:
        try:
            require_readable(command)
        except (ValueError, OSError, AssertionError) as error:
            mistakes.append(f"{command.line}\n    {error}")
    return "\n".join(mistakes)


@pytest.mark.parametrize(
    "line",
    [
        "gpt4o-lit fitt --config quickstart",
        "gpt4o-lit fit --config quikstart",
        "gpt4o-lit fit --config quickstart --trainer.max_stps 3",
        "gpt4o-lit fit --config quickstart --model.init_args.objective gpt4o_lit.objectives.Causal",
        "gpt4o-lit generate RUN --promt x",
        "gpt4o-lit compress RUN --recipe int5",
        "gpt4o-lit ablate norm_and_positions --dry_run",
        "gpt4o-lit plan --config quickstart --trainer.max_stps 3",
        "torchrun --standalone -m gpt4o_lit fit --config quikstart",
        "pip install 'gpt4o-lit[wandbb]'",
        "make dem",
        "curl somewhere",
    ],
)
def test_a_mistyped_command_is_found(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError)):
        require_readable(Command(line))


@pytest.mark.parametrize(
    ("page", "column"),
    [
        ("add_a_callback.md", "weights/decoder"),
        ("add_an_objective.md", "val/loss"),
        ("add_a_task.md", "train/loss"),
    ],
)
def test_a_page_can_be_followed_to_the_letter(page: str, column: str, lab: Path) -> None:
    write_files(f"docs/{page}", lab)
    (command,) = commands_in(text_of(f"docs/{page}"))
    run = lab / page.removesuffix(".md")
    assert main([*shlex.split(command.line)[1:], *SHORT.split(), "--run_dir", str(run)]) == 0
    with (run / "metrics.csv").open(encoding="utf-8") as lines:
        values = [float(row[column]) for row in csv.DictReader(lines) if row[column]]
    assert values
    assert all(0 < value < 1e4 for value in values)
