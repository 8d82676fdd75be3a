"""A file is answered row by row, in its order, and gone on with where it was stopped."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gpt4o_lit.__main__ import main
from gpt4o_lit.commands import predict_file as module
from gpt4o_lit.generation import PromptFormat, SamplingConfig, generate
from gpt4o_lit.interop.run import open_run
from tests.commands.conftest import MakeRun, packed

TEXTS = ["a longer source", "b", "cc", "one more of them", "d", "eee"]
CONFIG = SamplingConfig(max_new_tokens=6, temperature=0.0)


@pytest.fixture
def run(make_run: MakeRun) -> Path:
    """An encoder-decoder that a config of pairs describes."""
    run, _ = make_run("encoder_decoder")
    pairs = {"source": "say {word}", "max_source_len": 31, "max_target_len": 6, "columns": None}
    (run / "config.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"pairs": pairs}}}))
    (run.parent / "in.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    rows = [json.dumps({"word": text, "number": n}) for n, text in enumerate(TEXTS)]
    (run.parent / "in.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return run


def expected(run: Path) -> list[str]:
    """What the network says to each text alone, in a line."""
    opened = open_run(run)
    form = PromptFormat(add_eos=opened.source_eos)
    answers = [
        generate(opened.transformer, opened.tokenizer, [f"say {text}"], CONFIG, prompt_format=form)
        for text in TEXTS
    ]
    return [" ".join(answer.splitlines()) for (answer,) in answers]


@pytest.mark.parametrize("batch_size", ["1", "4"])
def test_every_line_is_answered_in_order(batch_size: str, run: Path) -> None:
    out = run.parent / "out.txt"
    files = [str(run.parent / "in.txt"), str(out)]
    assert main(["predict-file", str(run), *files, "--batch_size", batch_size]) == 0
    assert out.read_text(encoding="utf-8").split("\n") == [*expected(run), ""]
    assert not list(run.parent.glob("*.part*"))


def test_a_row_keeps_what_it_had(run: Path) -> None:
    out = run.parent / "out.jsonl"
    assert main(["predict-file", str(run), str(run.parent / "in.jsonl"), str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["number"] for row in rows] == list(range(len(TEXTS)))
    assert [" ".join(row["output"].splitlines()) for row in rows] == expected(run)


def test_blanks_are_read_as_in_training(run: Path) -> None:
    config, out = run / "config.yaml", run.parent / "out.txt"
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    values["data"]["init_args"]["pairs"]["collapse_blanks"] = True
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    spaced = ["  ".join(f" {text} ".split(" ")) for text in TEXTS]
    (run.parent / "in.txt").write_text("\n".join(spaced) + "\n", encoding="utf-8")
    assert main(["predict-file", str(run), str(run.parent / "in.txt"), str(out)]) == 0
    assert out.read_text(encoding="utf-8").split("\n") == [*expected(run), ""]


def test_what_was_written_before_a_kill_is_not_written_again(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run.parent / "out.txt"
    command = ["predict-file", str(run), str(run.parent / "in.txt"), str(out)]
    assert main(command) == 0
    whole = out.read_text(encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WINDOW", 1)
        patch.setattr(module._File, "_write", _killed_at_the_third(module._File._write))
        with pytest.raises(KeyboardInterrupt):
            module.main([*command[1:], "--batch_size", "2"])
    part = out.with_name("out.txt.part")
    assert part.read_text(encoding="utf-8").count("\n") == 4
    part.write_bytes(part.read_bytes() + b"torn")
    part.write_bytes(b"KEPT" + part.read_bytes())
    capsys.readouterr()
    assert main(command) == 0
    assert "going on behind row 4" in capsys.readouterr().out
    assert out.read_text(encoding="utf-8") == "KEPT" + whole
    part.write_text("of another file\n")
    assert main(command) == 0
    assert out.read_text(encoding="utf-8") == whole


def _killed_at_the_third(write: Callable[..., None]) -> Callable[..., None]:
    calls = []

    def patched(*args: object) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(*args)

    return patched


def test_a_text_alone_and_a_compressed_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict-file", str(run), "--text", TEXTS[0]]) == 0
    assert " ".join(capsys.readouterr().out.rstrip("\n").splitlines()) == expected(run)[0]
    flags = ["--text", TEXTS[0], "--num_beams", "2", "--max_new_tokens", "3"]
    assert main(["predict-file", str(packed(run)), *flags]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either IN and OUT or --text"),
        (["in.txt"], "OUT is missing"),
        (["im.txt", "out.txt"], "did you mean"),
        (["in.txt", "out.csv"], "must end in .txt or .jsonl"),
        (["in.txt", "out.txt", "--batch_size", "0"], r"batch_size (0)"),
        (["bad.jsonl", "out.txt"], "bad.jsonl:1: there is no column 'word'"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    run: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(run.parent)
    Path("bad.jsonl").write_text('{"words": "a"}\n')
    assert main(["predict-file", str(run), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_run_that_was_not_trained_on_pairs_is_refused(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = make_run()
    assert main(["predict-file", str(run), "--text", "a"]) == 2
    assert "use `gpt4o-lit generate`" in capsys.readouterr().err
