"""The table of verbs: fast help, and mistakes that are one line."""

import subprocess
import sys
import time

import pytest
from lightning import Trainer

from gpt4o_lit.__main__ import VERBS, main
from gpt4o_lit.parse_errors import explain


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {verb} " in printed for verb in VERBS)


def test_help_takes_less_than_a_third_of_a_second() -> None:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        command = [sys.executable, "-m", "gpt4o_lit", "--help"]
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.3


@pytest.mark.parametrize(
    ("name", "taught"),
    [
        ("gpt4o_lit.tasks.Pretraining", "as many as the data's tokenizer has"),
        ("gpt4o_lit.optim.WarmupStableDecay", "Share of all steps in which the rate falls"),
        ("gpt4o_lit.objectives.SpanCorruption", "Pieces in a hidden span, on average"),
    ],
)
def test_help_shows_the_line_under_a_field(
    name: str, taught: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flag = {"tasks": "--model.help", "optim": "--model.schedule.help"}.get(
        name.split(".")[1], "--model.objective.help"
    )
    model = [] if "tasks" in name else ["--model", "gpt4o_lit.tasks.Pretraining"]
    with pytest.raises(SystemExit):
        main(["fit", *model, flag, name])
    assert taught in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fti"], "no verb 'fti'; did you mean 'fit'?"),
        (["fit", "--config", "quickstrat"], "did you mean 'quickstart'?"),
        (["fit", "--resume", "nowhere"], "nowhere is no run directory"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_mistyped_strategy_gets_the_nearest_of_ours() -> None:
    with pytest.raises(ValueError, match="invalid strategy name") as caught:
        Trainer(accelerator="cpu", strategy="gpt4o_lit.strategies.FSPD2", logger=False)
    assert explain(str(caught.value)).endswith("did you mean 'gpt4o_lit.strategies.FSDP2'?")


def test_who_has_read_enough_is_told_of_no_mistake() -> None:
    command = f"{sys.executable} -m gpt4o_lit configs | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("complete experiments")
    assert not done.stderr
