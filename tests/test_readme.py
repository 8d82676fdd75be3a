"""Every command in the README is one that the program has, with options that it knows."""

import io
import re
import shlex
from pathlib import Path

import pytest

from gpt4o_lit import configs
from gpt4o_lit.__main__ import main

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for line in README.splitlines()
    if line.startswith("gpt4o-lit ")
]


def test_the_readme_shows_how_to_fit_test_and_generate() -> None:
    assert {"fit", "test", "generate", "configs"} <= {command[0] for command in COMMANDS}


SHORT = "--trainer.max_steps 2 --trainer.val_check_interval 2 --trainer.limit_val_batches 1"
UNMEASURED = "--model_card.measure false"  # what a card measures, one run's shows
FEWER = {
    "ablate": "--device h100",  # whose peak need not be measured
    "bench": "--kinds decode --precision fp32",
    "compress": "--trainer.limit_val_batches 1",
    "plan": "--devices 1",
    "ledger": "--rounds 1 --max_texts 4 --batch_sizes 1",
}


def run_here(command: list[str], run: Path) -> list[str]:
    """The command with the run's own place for the README's, short enough for a test."""
    command = [str(run) if word.startswith("runs/") else word for word in command]
    if "--resume" in command and command[0] == "fit":
        return [*command, "--trainer.max_steps", "4", *UNMEASURED.split()]
    if command[0] == "test":
        return [*command, "--trainer.limit_test_batches", "1"]
    if command[0] == "generate":
        return [*command, "--max_new_tokens", "4"]
    if command[0] == "fit":
        return [*command, *SHORT.split(), *UNMEASURED.split()]
    return [*command, *FEWER.get(command[0], "").split()]


def test_the_commands_of_the_readme_run(
    workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workshop)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    Path("README.md").write_text(README, encoding="utf-8")
    run = workshop / "run"
    fit = ["fit", "--config", "quickstart", "--run_dir", str(run), *SHORT.split()]
    assert main([*fit, "--trainer.max_steps", "3"]) == 0
    for command in COMMANDS:
        try:
            code = main(run_here(command, run))
        except SystemExit as exit_:
            code = exit_.code
        assert code == 0, f"{command}: {capsys.readouterr().err}"


def test_paths_of_the_readme_exist() -> None:
    root = Path(__file__).parent.parent
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (root / link).exists(), link
    assert all(name in configs.names() for name in ("quickstart", "encoder_tiny", "with/bf16"))
