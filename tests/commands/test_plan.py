"""`gpt4o-lit plan`: every experiment can be looked at before it is run."""

import json
from pathlib import Path
from typing import Any

import pytest

from gpt4o_lit import configs
from gpt4o_lit.__main__ import main

GOES_ON_FROM = {"preferred_answers": "runs/daily_dialogues"}
EXPERIMENTS = [name for name in configs.names() if "/" not in name and name not in GOES_ON_FROM]
OVERLAYS = [name for name in configs.names() if name.startswith("with/")]
BASES = {
    "with/masked_lm": "encoder_tiny",
    "with/span_corruption": "encoder_decoder_tiny",
}
ADAMW = ("--model.init_args.optimizer", "gpt4o_lit.optim.AdamW")


def planned(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    assert main(["plan", *flags, "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


@pytest.mark.slow
def test_a_plan_is_read_from_the_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    shallow = ("--model.init_args.transformer.decoder.num_layers", "1")
    flags = ("--config", "quickstart", "--config", "with/bf16", *ADAMW, *shallow)
    report = planned(capsys, *flags, "--devices", "4", "--device", "rtx4090", "--price", "2")
    assert report["rows"] == 8
    assert report["steps"] == 300
    assert report["parameters"] == pytest.approx(1.23e6, rel=0.05)
    assert "fsdp2" in report["strategies"]
    assert (
        "num_heads (6) must be a multiple of the devices (4)"
        in (report["refused"]["tensor parallel"])
    )
    costs = report["strategies"]["ddp"]
    assert costs["fits"]
    assert costs["price"] == pytest.approx(2 * costs["device_hours"])
    assert costs["device_hours"] == pytest.approx(4 * costs["hours"])
    assert costs["bytes"]["weights"] == 4 * report["parameters"]


def test_a_table_names_what_limits_and_leaves_the_price_to_who_knows_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["plan", "--config", "sst2", "--device", "rtx4090"]) == 0
    told = capsys.readouterr().out
    assert "what limits them is activations" in told
    assert "hours need an end" in told


def test_tokens_say_how_long_a_run_is(capsys: pytest.CaptureFixture[str]) -> None:
    report = planned(capsys, "--config", "sst2", "--device", "rtx4090", "--tokens", "1e9")
    costs = report["strategies"]["one"]
    assert costs["hours"] == pytest.approx(1e9 / costs["tokens_per_second"] / 3600, rel=0.01)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--device", "h20"), "did you mean 'h200'?"),
        (("--device", "h200", "--devices", "0"), "devices (0) must be at least 1"),
        (("--device", "h200", "--trainer.precision", "64-true"), "is not planned for"),
    ],
)
def test_a_mistake_is_one_line(
    flags: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--config", "quickstart", *flags]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("name", "parent"), GOES_ON_FROM.items())
def test_what_goes_on_from_a_run_that_is_not_there_names_it(
    name: str,
    parent: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "--config", name, "--device", "h100"]) == 2
    assert f"{parent} is no run directory" in capsys.readouterr().err


def test_groups_are_as_large_as_the_strategy_says(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--config", "sst2", "--config", "with/fsdp2_tensor_parallel", "--devices", "16")
    pairs = planned(capsys, *flags, "--device", "h100")
    told = ("--trainer.strategy.init_args.size", "4")
    fours = planned(capsys, *flags, *told, "--device", "h100")
    key = "fsdp2 x tensor"
    speeds = [report["strategies"][key]["tokens_per_second"] for report in (pairs, fours)]
    assert speeds[0] > speeds[1]  # fewer batches at once, and more to tell each other


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS + OVERLAYS)
def test_every_experiment_and_overlay_can_be_planned(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = BASES.get(name, "quickstart")
    flags = ("--config", base, "--config", name) if name in OVERLAYS else ("--config", name)
    size = ("--model.init_args.transformer.vocab_size", "1000")
    report = planned(capsys, *flags, *size, "--device", "h100")
    assert report["strategies"]["one"]["fits"]
