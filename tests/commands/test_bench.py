"""The verb `bench`: real processes on small networks; its figures hang together."""

import json
from pathlib import Path

import pytest

from gpt4o_lit.__main__ import main
from tests.commands.conftest import MakeRun, packed

QUICK = ["--seconds", "0.05", "--length", "8", "--new_tokens", "8"]


@pytest.mark.parametrize(
    "kind", ["decoder", "encoder", pytest.param("encoder_decoder", marks=pytest.mark.slow)]
)
def test_every_kind_of_network_is_measured(
    kind: str, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run, net = make_run(kind)
    assert main(["bench", str(run), *QUICK, "--precision", "fp32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = json.loads(lines[-1])
    assert told["parameters"] == sum(weight.numel() for weight in net.parameters())
    kinds = [row["kind"] for row in told["measured"]]
    assert kinds == (
        ["training", "prefill"] if kind == "encoder" else ["training", "prefill", "decode"]
    )
    assert [line.split()[0] for line in lines[2:-1]] == kinds
    for row in told["measured"]:
        count = 1 if row["kind"] == "decode" else 8
        if (row["kind"], kind) == ("training", "encoder_decoder"):
            count = 8 + 2
        assert row["tokens_per_second"] == pytest.approx(1e3 * count / row["milliseconds"])
        assert row["peak_memory_bytes"] > 50e6
        share = row["bandwidth_share" if row["kind"] == "decode" else "flops_share"]
        assert 0 < share < 1


@pytest.mark.slow
def test_batches_and_precisions_each_have_a_row(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stack = "decoder: {num_layers: 1, dim: 32, attention: {num_heads: 2}}"
    text = f"{stack}\nvocab_size: 50\nmax_seq_len: 32\n"
    (tmp_path / "net.yaml").write_text(text, encoding="utf-8")
    flags = ["--kinds", "decode", "--batch_size", "1", "3", *QUICK]
    assert main(["bench", str(tmp_path / "net.yaml"), *flags]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["measured"]
    assert [(row["precision"], row["batch_size"]) for row in rows] == [
        ("fp32", 1), ("fp32", 3), ("bf16", 1), ("bf16", 3),
    ]  # fmt: skip


def test_whole_numbers_are_read_and_written_with(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = packed(make_run()[0])
    assert main(["bench", str(run), *QUICK, "--precision", "fp32"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["measured"]
    assert [row["kind"] for row in rows] == ["prefill", "decode"]
    assert main(["bench", str(run), "--kinds", "training"]) == 2
    assert "has whole numbers for weights; leave training out" in capsys.readouterr().err


def test_what_cannot_be_measured_is_told(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = make_run("encoder")
    assert main(["bench", str(run), "--kinds", "decode"]) == 2
    assert "writes no text; leave decode out" in capsys.readouterr().err
    run, _ = make_run()
    assert main(["bench", str(run), "--length", "30"]) == 2
    assert "set --length to at most" in capsys.readouterr().err
    assert main(["bench", "with/bf16"]) == 2
    assert "describes no network" in capsys.readouterr().err
    assert main(["bench", "model/gpt3"]) == 2
    assert "did you mean 'model/gpt2'?" in capsys.readouterr().err
