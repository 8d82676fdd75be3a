"""`gpt4o-lit evaluate`: a table, JSON, a file and lines in the card; mistakes are one line."""

import json
from pathlib import Path

import pytest

from gpt4o_lit.__main__ import main
from gpt4o_lit.evaluation.perplexity import text_quality
from gpt4o_lit.tokenizer import ByteTokenizer
from tests.commands.conftest import MakeRun


def test_texts_are_measured_and_written_down(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, net = make_run()
    (tmp_path / "one.txt").write_text("hello there\n" * 9)
    (tmp_path / "two.txt").write_text("other words")
    assert main(["evaluate", str(run), "--text", str(tmp_path / "*.txt"), "--stride", "8"]) == 0
    out = capsys.readouterr().out
    told = json.loads(out.splitlines()[-1])
    texts = ["hello there\n" * 9, "other words"]
    quality = text_quality(net, ByteTokenizer(), texts, stride=8)
    values = {each["metric"]: each["value"] for each in told["results"]}
    assert values["bits_per_byte"] == pytest.approx(quality.bits_per_byte, rel=1e-5)
    assert values["word_perplexity"] == pytest.approx(quality.word_perplexity, rel=1e-5)
    assert f"{quality.bits_per_byte:.4f}" in out
    (file,) = run.glob("evaluate/*/results.json")
    assert json.loads(file.read_text()) == told


def test_the_card_has_a_line_per_metric_the_latest(make_run: MakeRun, tmp_path: Path) -> None:
    run, _ = make_run()
    (run / "MODEL_CARD.md").write_text("# run\n\n## What was it trained on?\n\nText.\n")
    text = tmp_path / "one.txt"
    for words in ("hello there", "other words"):
        text.write_text(words)
        main(["evaluate", str(run), "--text", str(text)])
    card = (run / "MODEL_CARD.md").read_text()
    assert card.startswith("# run\n\n## What was it trained on?\n\nText.\n")
    assert card.count("| bits_per_byte | best.ckpt |") == 1
    assert card.count("## How well does it do?") == 1
    latest = json.loads(max(run.glob("evaluate/*/results.json")).read_text())["results"]
    assert all(f"{result['value']:.4f}" in card for result in latest)


def test_tasks_are_measured_on_local_rows(
    make_run: MakeRun,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("lm_eval", reason="the extra `harness` is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run, _ = make_run()
    rows = tmp_path / "passive_1.jsonl"
    row = json.dumps({"sentence_good": "he was seen", "sentence_bad": "he was smiled"})
    rows.write_text(f"{row}\n" * 4)
    task = f"blimp_passive_1={rows}"
    assert main(["evaluate", str(run), "--tasks", task, "--limit", "3"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    (result,) = told["results"]
    assert (result["task"], result["rows"], result["metric"]) == ("blimp_passive_1", 3, "acc")
    assert result["value"] in (0.0, 1.0)


def test_programs_are_run_and_written_down(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = make_run()
    problem = {"task_id": "t", "entry_point": "f", "test": "def check(f):\n    assert f() == 1\n"}
    prompts = ["def f(): return 1\n#", "def f(): return 2\n#", f"# {'long' * 20}\n"]
    rows = [json.dumps(problem | {"prompt": prompt}) for prompt in prompts]
    file = tmp_path / "problems.jsonl"
    file.write_text("\n".join(rows), encoding="utf-8")
    flags = ["--samples", "2", "--k", "1", "2"]
    assert main(["evaluate", str(run), "--code", str(file), *flags]) == 0
    told = capsys.readouterr()
    assert "1 of 3 prompts fill the context of 32 pieces" in told.err
    results = json.loads(told.out.splitlines()[-1])["results"]
    assert [result["metric"] for result in results] == ["pass@1", "pass@2"]
    (programs,) = run.glob("evaluate/*/programs.jsonl")
    ends = [json.loads(line) for line in programs.read_text(encoding="utf-8").splitlines()]
    assert [end["problem"] for end in ends] == ["t"] * 6
    assert not any(end["passed"] for end in ends[2:])
    right = sum(end["passed"] for end in ends)
    assert results[0]["value"] == pytest.approx(right / 6)


@pytest.mark.parametrize(
    ("flags", "kind", "said"),
    [
        ([], "decoder", "give --tasks, --text or --code"),
        (["--code", "a.jsonl", "--k", "3"], "decoder", "k (3) must be within 1"),
        (["--code", "a.jsonl", "--samples", "2", "--temperature", "0"], "decoder", "all alike"),
        (["--text", "missing.txt"], "decoder", "missing.txt"),
        (["--text", "a.txt", "--stride", "99"], "decoder", "stride (99)"),
        (["--text", "a.txt", "--limit", "0"], "decoder", "limit (0)"),
        (["--text", "a.txt"], "encoder", "is for decoders"),
    ],
)
def test_mistakes_are_one_line(
    flags: list[str],
    kind: str,
    said: str,
    make_run: MakeRun,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("some text")
    problem = {"task_id": "t", "prompt": "def f():", "test": "", "entry_point": "f"}
    (tmp_path / "a.jsonl").write_text(json.dumps(problem))
    run, _ = make_run(kind)
    assert main(["evaluate", str(run), *flags]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("gpt4o-lit evaluate: ")
    assert said in error
