"""Every packaged config opens with a line of its own, parses, and builds what it says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import LightningDataModule

from gpt4o_lit import configs
from gpt4o_lit.__main__ import main
from gpt4o_lit.cli import RUN_DIR, ExperimentCLI, resolve
from gpt4o_lit.model import Transformer, TransformerConfig, count_parameters
from gpt4o_lit.tasks import Task
from tests.end_to_end.conftest import write_config

EXPERIMENTS = [name for name in configs.names() if "/" not in name]
OVERLAYS = [name for name in configs.names() if name.startswith("with/")]
GRIDS = [name for name in configs.names() if name.startswith("grid/")]
SIZES = [name for name in configs.names() if name.startswith("model/")]
MILLIONS = {
    "transformer_base": 63.0, "gpt2": 124.4, "gpt2_medium": 354.8, "gpt2_large": 774.0,
    "gpt2_xl": 1557.6, "llama_15m": 15.2, "llama_124m": 123.6, "llama_1b": 1100.0,
    "bert_base": 109.5, "t5_small": 60.5,
}  # fmt: skip
STACKS = {
    "masked_lm": "encoder_tiny",
    "span_corruption": "encoder_decoder_tiny",
    "muon": "encoder_tiny",
}


def printed(argv: list[str], capsys: pytest.CaptureFixture[str]) -> dict:
    with pytest.raises(SystemExit) as exit_:
        main([*argv, "--print_config"])
    assert exit_.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize("name", configs.names())
def test_a_config_opens_with_what_it_is(name: str) -> None:
    path = configs.find(name)
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert len(configs.first_line(name)) > 20


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_parses_and_its_printed_config_is_the_same_experiment(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first = printed(["fit", "--config", name], capsys)
    assert first["name"] == name
    again = tmp_path / "printed.yaml"
    again.write_text(yaml.safe_dump(first), encoding="utf-8")
    assert printed(["fit", "--config", str(again)], capsys) == first


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_lies_over_an_experiment_and_only_appends(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = STACKS.get(name.removeprefix("with/"), "quickstart")
    plain = printed(["fit", "--config", base], capsys)
    laid = printed(["fit", "--config", base, "--config", name], capsys)
    assert laid["data"] == plain["data"]
    assert len(laid["trainer"]["logger"]) >= len(plain["trainer"]["logger"])
    text = configs.find(name).read_text(encoding="utf-8")
    assert "callbacks:" not in text
    assert "logger:" not in text
    has_it_already = name in ("with/masked_lm", "with/span_corruption")  # the one for such stacks
    assert (laid == plain) == has_it_already


class Instantiated(ExperimentCLI):
    """Everything that a command makes before it does anything."""

    def _run_subcommand(self, subcommand: str) -> None:
        assert subcommand == "fit"


@pytest.mark.parametrize(
    ("experiment", "overlay"),
    [(name, None) for name in EXPERIMENTS]
    + [(STACKS.get(name.removeprefix("with/"), "quickstart"), name) for name in OVERLAYS],
)
def test_everything_in_a_config_can_be_instantiated(
    experiment: str, overlay: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    read = yaml.safe_load(configs.find(experiment).read_text(encoding="utf-8"))
    if parent := read["model"]["init_args"].get("pretrained"):
        assert main(["fit", "--config", str(write_config(tmp_path)), "--run_dir", parent]) == 0
    monkeypatch.setenv(RUN_DIR, str(tmp_path / "run"))
    overlays = ["--config", overlay] if overlay else []
    args, run = resolve(["fit", "--config", experiment, *overlays])
    cli = Instantiated(args, run)
    assert isinstance(cli.model, Task)
    assert isinstance(cli.datamodule, LightningDataModule)
    assert cli.trainer.callbacks
    assert parent or number_of_weights(cli.model.transformer_config) > 100_000


def number_of_weights(config: TransformerConfig) -> int:
    """The weights of the network itself, built without memory."""
    with torch.device("meta"):
        network = Transformer(replace(config, vocab_size=config.vocab_size or 1000))
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", SIZES)
def test_a_size_has_the_parameters_of_its_paper(name: str) -> None:
    config = TransformerConfig.from_dict(yaml.safe_load(configs.find(name).read_text()))
    expected = MILLIONS[name.removeprefix("model/")]
    assert number_of_weights(config) / 1e6 == pytest.approx(expected, abs=0.06)
    assert count_parameters(config)["total"] == number_of_weights(config)


def test_a_size_takes_the_place_of_an_experiments_network(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flag = "--model.init_args.transformer=model/gpt2"
    laid = printed(["fit", "--config", "quickstart", flag], capsys)
    assert laid["model"]["init_args"]["transformer"]["decoder"]["num_layers"] == 12


@pytest.mark.parametrize("name", GRIDS)
def test_every_variant_of_a_grid_can_be_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ablate", name, "--dry_run", "--device", "h100"]) == 0
    out = capsys.readouterr().out
    runs = int(out.partition("together ")[2].partition(" runs")[0])
    assert f": {runs} runs," in configs.first_line(name)
    assert not list(tmp_path.iterdir())


def test_configs_lists_each_with_its_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs"]) == 0
    out = capsys.readouterr().out
    assert all(name in out and configs.first_line(name) in out for name in configs.names())


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        ({"class_path": "gpt4o_lit.callbacks.WandaPrunin"}, "'gpt4o_lit.callbacks.WandaPruning'?"),
        (
            {
                "class_path": "gpt4o_lit.callbacks.StructuredPruning",
                "init_args": {"cut": {"head": 0.5}},
            },
            "does not accept option 'head'; did you mean 'cut.heads'?",
        ),
    ],
)
def test_a_mistyped_callback_is_told_in_as_few_words(
    callback: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(yaml.safe_dump({"trainer": {"callbacks+": [callback]}}), encoding="utf-8")
    assert main(["fit", "--config", "quickstart", "--config", str(overlay)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.endswith(message)
    assert "\n" not in error
    assert "class_path entry" not in error


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--trainer.max_stps=4", "did you mean '--trainer.max_steps'?"),
        ("--trainer.max_step=4", "did you mean '--trainer.max_steps'?"),
        ("--data.init_args.batchsize=3", "did you mean 'batch_size'?"),
        ("--model=gpt4o_lit.tasks.Pretrainin", "did you mean 'gpt4o_lit.tasks.Pretraining'?"),
        (
            "--model.init_args.objective=gpt4o_lit.objectives.CausalML",
            "did you mean 'gpt4o_lit.objectives.CausalLM'?",
        ),
        (
            "--trainer.callbacks+=Distilation",
            "callbacks: Expected a dot import path string: Distilation; did you mean",
        ),
        (
            "--model.init_args.transformer.decoder.attention.num_kv_heads=4",
            "num_heads (6) must be a multiple of num_kv_heads (4)",
        ),
        ("--model.init_args.objective=gpt4o_lit.objectives.MaskedLM", "needs transformer: encoder"),
    ],
)
def test_a_mistyped_key_or_class_is_one_line_with_the_nearest_right_one(
    flag: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", "quickstart", flag]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "gpt4o-lit fit:" in line]
    assert len(lines) == 1
    assert message in lines[0]
