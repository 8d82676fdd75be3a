"""`--resume RUN` becomes the run's config and the checkpoint that the verb wants."""

from pathlib import Path

import pytest

from gpt4o_lit.cli import closing_words, resolve
from gpt4o_lit.run_directory import RunDirectory


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    found = RunDirectory(tmp_path / "run")
    found.checkpoints.mkdir(parents=True)
    found.config.write_text("name: run\n", encoding="utf-8")
    (found.checkpoints / "last.ckpt").write_bytes(b"")
    return found


def checkpoint_of(verb: str, run: RunDirectory) -> str:
    args, _ = resolve([verb, "--resume", str(run.path)])
    return Path(args[args.index("--ckpt_path") + 1]).name


def test_fit_goes_on_from_the_last_and_other_verbs_read_the_best(run: RunDirectory) -> None:
    assert checkpoint_of("test", run) == "last.ckpt"  # never validated: there is no best
    (run.checkpoints / "best.ckpt").write_bytes(b"")
    assert checkpoint_of("fit", run) == "last.ckpt"
    for verb in ("validate", "test", "predict"):
        assert checkpoint_of(verb, run) == "best.ckpt"


def test_fit_goes_on_in_its_own_directory_and_other_verbs_write_below_it(run: RunDirectory) -> None:
    assert resolve(["fit", "--resume", str(run.path)])[1] == run
    args, chosen = resolve(["test", "--resume", str(run.path)])
    assert chosen is None
    assert Path(args[args.index("--run_dir") + 1]).parent == run.path / "test"


def test_closing_words_end_with_three_commands_that_can_be_pasted(run: RunDirectory) -> None:
    commands = closing_words(run, "it's a\nlong prompt").splitlines()[-3:]
    assert all(command.startswith("  gpt4o-lit ") for command in commands)
    assert """--prompt 'it'"'"'s a' """ in commands[0]
