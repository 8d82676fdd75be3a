"""`gpt4o-lit callbacks` tells of each callback what it takes and what it cannot be with."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.combining import cannot_be_with, ours_by_name
from tests.end_to_end.conftest import write_config

SCHEDULE = {"final": 0.5, "begin": 1, "end": 2, "every": 1}
SETTINGS: dict[str, dict[str, Any]] = {
    "Distillation": {"teacher": "teacher"},
    "EfficiencyReport": {"parent": "teacher", "rounds": 1},
    "Evaluate": {"texts": ["text.txt"], "every_n_steps": 2},
    "Explain": {"text": "the cat"},
    "Int8Training": {},
    "LoRA": {"rank": 2},
    "MagnitudePruning": {"schedule": SCHEDULE},
    "MovementPruning": {"schedule": SCHEDULE},
    "PostTrainingQuantization": {},
    "Profile": {"skip_batches": 0, "warmup_batches": 0, "active_batches": 1},
    "QuantizationAwareTraining": {},
    "SparseGPTPruning": {"sparsity": 0.5, "num_batches": 1},
    "SparsityMap": {},
    "Stability": {},
    "StructuredPruning": {"cut": {"channels": 0.5}, "num_batches": 1},
    "WandaPruning": {"sparsity": 0.5, "num_batches": 1},
}


def test_all_are_listed_with_their_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["callbacks"]) == 0
    told = capsys.readouterr().out
    for name in ours_by_name():
        assert told.count(f"  {name} ") == 1, name
    assert "rank=8, alpha=16.0, dropout=0.0" in told
    assert "prompts=None, max_new_tokens=64" in told  # of one that each run has
    (lora,) = (block for block in told.split("\n  ") if block.startswith("LoRA"))
    assert "not with" not in lora  # which stands on a line of its own
    assert "not with MagnitudePruning, MovementPruning, QuantizationAwareTraining, " in told


def test_one_is_told_whole_ours_and_the_users_own(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["callbacks", "Distillation"]) == 0
    assert "not with --config with/tensor_parallel\n" in capsys.readouterr().out
    assert main(["callbacks", "LoRA"]) == 0
    told = capsys.readouterr().out
    assert "rank=8\n      Rows of A, columns of B." in told
    assert "not with MagnitudePruning" in told
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("own_ones.py").write_text(
        "import lightning\n\n\nclass Foo(lightning.Callback):\n"
        '    """Counts.\n\n    Args:\n        upto: Where it ends.\n    """\n\n'
        "    def __init__(self, upto: int = 3) -> None:\n        pass\n"
    )
    assert main(["callbacks", "own_ones.Foo"]) == 0
    assert "upto=3\n      Where it ends." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("LoRa", "did you mean 'LoRA'?"),
        ("nowhere.Foo", "nowhere.Foo cannot be imported from here"),
        ("pathlib.Path", "pathlib.Path is no lightning.Callback"),
    ],
)
def test_a_mistake_is_one_line(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["callbacks", name]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


@pytest.mark.slow
@pytest.mark.parametrize("pair", [*itertools.combinations(SETTINGS, 2)], ids="+".join)
def test_two_run_together_or_are_said_not_to(
    pair: tuple[str, str], tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    home = tmp_path_factory.getbasetemp() / "pairs"
    if not home.exists():
        home.mkdir()
        monkeypatch.chdir(home)
        config = write_config(home)
        assert main(["fit", "--config", str(config), "--run_dir", "teacher", *SHORT]) == 0
    monkeypatch.chdir(home)
    callbacks = [
        {"class_path": f"gpt4o_lit.callbacks.{name}", "init_args": SETTINGS[name]} for name in pair
    ]
    Path("with.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": callbacks}}))
    capsys.readouterr()
    run = "_".join(pair)
    given = ("--config", "tiny.yaml", "--config", "with.yaml", "--run_dir", run, *SHORT)
    status = main(["fit", *given])
    error = capsys.readouterr().err
    if pair[1] in cannot_be_with(ours_by_name()[pair[0]], ours_by_name()):
        assert status == 2
        assert any(f"{name} " in error.splitlines()[-1] for name in pair)
    else:
        assert status == 0, error[-2000:]


SHORT = (
    "--trainer.max_steps", "3", "--trainer.val_check_interval", "2", "--samples.enabled", "false",
    "--progress.refresh_rate", "0", "--model_card.measure", "false",
)  # fmt: skip
