"""A mistyped flag, choice or name is one line that names the nearest right one, for each verb."""

import pytest

from gpt4o_lit.__main__ import main
from gpt4o_lit.parse_errors import explain


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["generate", "run", "--promt", "a"], "unrecognized arguments: --promt a; {} '--prompt'?"),
        (["generate", "run", "--promp", "a"], "{} '--prompt'?"),
        (["corpus", "--outpu", "c"], "{} '--output'?"),
        (["generate", "run", "--no-steam"], "{} '--no-stream'?"),
        (["generate", "run", "--checkpoint", "lst"], "--checkpoint: invalid choice: 'lst'"),
        (["generate", "run", "--checkpoint", "lst"], "{} 'last'?"),
        (["generate", "run", "--top_k", "x"], "argument --top_k: invalid int value: 'x'"),
        (["generate"], "arguments are required: RUN"),
        (["tokenizer", "--sorces", "a.txt"], "{} '--sources'?"),
        (["tokenizer", "--model_type", "bqe"], "{} 'bpe'?"),
        (["corpus", "--output", "c", "--valid_fractoin", "1"], "{} '--valid_fraction'?"),
        (["corpus", "--output", "c", "--documents", "lne"], "{} 'line'?"),
        (["corpus", "--output", "c", "--on_error", "skp"], "{} 'skip'?"),
        (
            ["corpus", "--output", "c", "--tokenizer", "TrainSentencePeice"],
            "{} 'TrainSentencePiece'?",
        ),
        (
            ["corpus", "--output=c", "--tokenizer=TrainCharacters", "--tokenizer.sead=3"],
            "{} 'seed'?",
        ),
        (["configs", "--hlep"], "{} '--help'?"),
        (["sweep", "nowhere.yaml"], "nowhere.yaml does not exist; there is no 'nowhere.yaml' in"),
        (["configs", "quickstrat"], "{} 'quickstart'?"),
    ],
)
def test_a_mistake_names_the_nearest_right_word(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    shown = capsys.readouterr()
    assert message.format("did you mean") in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("Expected a <class 'str'> - size: Expected a <class 'int'>", "size: Expected a <class"),
        (
            "Expected a <class 'str'> - Problem with given class_path 'gpt4o_lit.strategies.FSPD2'",
            "Problem with given class_path 'gpt4o_lit.strategies.FSPD2'; did you mean "
            "'gpt4o_lit.strategies.FSDP2'?",
        ),
        ("Expected a <class 'str'>", "Expected a <class 'str'>"),
    ],
)
def test_what_might_have_been_a_word_is_told_as_what_it_is(told: str, message: str) -> None:
    assert explain(told).startswith(message)


@pytest.mark.parametrize("verb", ["generate", "tokenizer", "corpus", "configs"])
def test_help_is_shown(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    assert f"usage: gpt4o-lit {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["fit", "test"])
def test_help_of_runs_ends_with_how_one_goes_on(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    shown = capsys.readouterr().out
    assert f"\nexamples:\n  gpt4o-lit {verb} --" in shown
    assert "\n--resume RUN " in shown
