"""A run and what was made of it, measured by the verbs and by a callback."""

import json
from pathlib import Path

import pytest
import yaml

from gpt4o_lit.__main__ import main
from tests.end_to_end.test_fit import fit

QAT = {
    "class_path": "gpt4o_lit.callbacks.QuantizationAwareTraining",
    "init_args": {"formats": {"format": {"bits": 4, "group_size": 32}}},
}


@pytest.mark.usefixtures("traced")
def test_a_child_is_measured_beside_its_parent(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = fit(config, "parent")
    assert main(["sensitivity", str(parent), "--num_batches", "1", "--out", "layers"]) == 0
    rises = json.loads(Path("layers/sensitivity.json").read_text())
    assert "tokens" in rises
    assert set(rises["tokens"]) == {"int8", "int4", "25% pruned", "50% pruned", "75% pruned"}
    assert main(["compress", str(parent), "--recipe", "layers/recipe.yaml", "--out", "small"]) == 0
    capsys.readouterr()
    flags = ["--rounds", "1", "--new_tokens", "2", "--length", "8", "--batch_sizes", "1", "2"]
    flags += ["--compile", "--price_per_hour", "1"]
    assert main(["ledger", str(parent), "small", *flags]) == 0
    printed = capsys.readouterr().out
    assert "bits per byte" in printed
    for what in ("read", "write"):
        for how in ("batch 1", "batch 2", "batch 1, compiled", "batch 2, compiled"):
            assert f"{what} tokens/s, {how} " in printed
    (written,) = (parent / "ledger").glob("*/ledger.json")
    dense, small = json.loads(written.read_text())["entries"]
    assert small["bytes_on_disk"] < 0.45 * dense["bytes_on_disk"]
    assert small["bits_per_byte"] == pytest.approx(dense["bits_per_byte"], rel=0.05)
    assert min(dense["peak_memory_bytes"], small["peak_memory_bytes"]) > 50_000_000
    assert dense["price_per_million"] > 0


@pytest.mark.slow
def test_a_report_stands_in_the_card(config: Path, home: Path) -> None:
    parent = fit(config, "parent", "--trainer.max_steps", "3")
    report = {
        "class_path": "gpt4o_lit.callbacks.EfficiencyReport",
        "init_args": {"parent": str(parent), "rounds": 1},
    }
    overlay = home / "report.yaml"
    overlay.write_text(yaml.safe_dump({"trainer": {"callbacks+": [QAT, report]}}))
    run = fit(config, "run", "--config", str(overlay), "--trainer.max_steps", "3")
    entries = json.loads((run / "efficiency/ledger.json").read_text())["entries"]
    assert [Path(entry["run"]).name for entry in entries] == ["parent", "compressed"]
    assert "## What was it worth?" in (run / "MODEL_CARD.md").read_text()
    assert (run / "efficiency/pareto.png").exists()
