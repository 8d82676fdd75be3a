"""Every command in the README is one that the program has, with options that it knows."""

import re
import shlex
from pathlib import Path

import pytest

from gpt4o_lit import configs
from gpt4o_lit.__main__ import VERBS, main

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for line in README.splitlines()
    if line.startswith("gpt4o-lit ")
]


def test_the_readme_shows_how_to_fit_test_and_generate() -> None:
    assert {"fit", "test", "generate", "configs"} <= {command[0] for command in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_of_the_readme_is_understood(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command[0] in VERBS
    if command[0] == "fit" and "--resume" not in command:
        with pytest.raises(SystemExit) as exit_:
            main([*command, "--print_config"])
        assert exit_.value.code == 0
    elif "--help" in command:
        with pytest.raises(SystemExit) as exit_:
            main(command)
        assert exit_.value.code == 0
    elif command == ["configs"]:
        assert main(command) == 0
    else:
        assert main(command) == 2  # the run of the README does not exist here
        assert "is no run directory" in capsys.readouterr().err


def test_paths_of_the_readme_exist() -> None:
    root = Path(__file__).parent.parent
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (root / link).exists(), link
    assert all(name in configs.names() for name in ("quickstart", "encoder_tiny", "with/muon"))
