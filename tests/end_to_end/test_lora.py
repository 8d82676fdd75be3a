"""Adapters within a run: they alone are trained, and whoever opens the run has them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
import yaml
from torch import Tensor

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from gpt4o_lit.compression import add_low_rank_, quantize_base_
from gpt4o_lit.interop.run import PREFIX, open_run
from gpt4o_lit.model import Transformer, TransformerConfig
from gpt4o_lit.model.low_rank import config_of
from gpt4o_lit.model.quantized import formats_of
from gpt4o_lit.model.weight_format import WeightFormat
from tests.conftest import Saved
from tests.end_to_end.conftest import give, kill_and_resume, load, weights
from tests.end_to_end.test_fit import assert_equal, fit, fit_on_two

QLORA = {"quantize": {"bits": 4, "group_size": 32}, "dropout": 0.1}
FROM_BASE = ("--model.init_args.transformer={encoder: null, decoder: null}",
             "--model.init_args.pretrained=base")  # fmt: skip
FASTER = ("--model.init_args.optimizer.init_args.lr", "0.03")

Overlay = Callable[..., str]


@pytest.fixture
def overlay(home: Path) -> Overlay:
    """A file that adds LoRA with these settings, and other callbacks."""

    def write(*others: dict[str, Any], **settings: Any) -> str:
        callback = {"class_path": "gpt4o_lit.callbacks.LoRA", "init_args": {"rank": 4} | settings}
        path = home / "lora.yaml"
        path.write_text(yaml.safe_dump({"trainer": {"callbacks+": [callback, *others]}}))
        return str(path)

    return write


@torch.no_grad()
def logits(net: Transformer) -> Tensor:
    tokens = torch.arange(24).view(1, -1)
    both = net.encoder is not None and net.decoder is not None
    return net(tokens, source_BS=tokens) if both else net(tokens)  # type: ignore[no-any-return]


def val_loss(run: Path | str) -> float:
    return float(read_metrics(Path(run) / "metrics.csv")[-1]["val/loss"])


def unmerged(run: Path) -> Transformer:
    """The network of a run's last step as it was trained, adapters beside its weights."""
    saved = load(run, "last")
    net = Transformer(TransformerConfig.from_dict(saved["transformer_config"])).eval()
    if saved["low_rank"]["formats"]:
        quantize_base_(net, WeightFormat(**QLORA["quantize"]))
    add_low_rank_(net, config_of(saved["low_rank"]))
    state = saved["state_dict"].items()
    net.load_state_dict({name.removeprefix(PREFIX): tensor for name, tensor in state})
    return net


@pytest.mark.parametrize(
    ("stacks", "objective", "settings", "flags"),
    [
        (["encoder"], "MaskedLM", QLORA | {"train_also": ["*norm"]}, ["--config", "with/bf16"]),
        (["encoder", "decoder"], "SpanCorruption", {"rank_stabilized": True}, []),
        (["decoder"], "CausalLM", QLORA, []),
        pytest.param(["decoder"], "CausalLM", QLORA, ["--config", "with/compile"],
                     marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_adapters_alone_are_trained_and_the_run_opens_with_them(
    stacks: list[str],
    objective: str,
    settings: dict[str, Any],
    flags: list[str],
    config: Path,
    overlay: Overlay,
) -> None:
    if stacks != ["decoder"]:
        give(config, stacks, objective)
    run = fit(config, "run", *FASTER, *flags, "--config", overlay(**settings))
    after, trained = weights(run), 0
    for name, weight in after.items():
        trains = ".low_rank." in name or (name.endswith("norm.weight") and "train_also" in settings)
        trained += trains * weight.numel()
        assert not name.endswith("low_rank.B") or weight.any()
    (optimizer,) = load(run, "last")["optimizer_states"]
    assert sum(state["exp_avg"].numel() for state in optimizer["state"].values()) == trained
    assert read_metrics(run / "metrics.csv")[-1]["lora/parameters"] == trained
    assert any(".weight.numbers" in name for name in after) == ("quantize" in settings)
    opened = open_run(run, "last").transformer
    assert not formats_of(opened)
    torch.testing.assert_close(logits(opened), logits(unmerged(run)), atol=1e-5, rtol=0)
    assert main(["validate", "--resume", "run", "--run_dir", "again"]) == 0
    best = min(row["val/loss"] for row in read_metrics(run / "metrics.csv") if "val/loss" in row)
    assert val_loss("again") == pytest.approx(best, abs=2e-3 if "with/bf16" in flags else 1e-5)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_bit_by_bit(config: Path, overlay: Overlay) -> None:
    flags = (*FASTER, "--config", overlay(**QLORA), "--trainer.max_steps", "8")
    flags += ("--checkpoint.every_n_train_steps", "1")
    whole = fit(config, "whole", *flags)
    kill_and_resume(config, flags, rows=3)
    assert_equal(weights(whole), weights(Path("run")), atol=0)
    ours, theirs = (open_run(each, "last").transformer for each in (whole, Path("run")))
    assert torch.equal(logits(ours), logits(theirs))
    files = [Path(each, "adapter/adapter_model.safetensors") for each in (whole, "run")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_two_processes_train_as_one_does(config: Path, overlay: Overlay) -> None:
    give(config, ["decoder"], "CausalLM")
    fit(config, "base", "--trainer.max_steps", "3")
    flags = [
        *FROM_BASE,
        "--config",
        overlay(quantize=QLORA["quantize"]),
        "--trainer.max_steps",
        "3",
    ]
    flags += ["--model.init_args.dropout", "0"]
    alone = fit(config, "alone", *flags)
    half = "--data.init_args.batch_size=2"
    fit_on_two("--config", str(config), "--run_dir", "together", *flags, half)
    assert_equal(weights(alone), weights(Path("together")), atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_peft_opens_the_adapter_on_the_model_that_was_imported(
    name: str, theirs: Saved, config: Path, overlay: Overlay, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(theirs(name)), "--run_dir", "base"]) == 0
    tokenizer = ("--data.init_args.tokenizer", "gpt4o_lit.tokenizer.LoadTokenizer",
                 "--data.init_args.tokenizer.init_args.path", "base")  # fmt: skip
    run = fit(config, "run", *FROM_BASE, *FASTER, *tokenizer, "--config", overlay())
    assert "adapter: run/adapter (peft, " in capsys.readouterr().out
    assert main(["export", "base", "exported"]) == 0
    model = transformers.AutoModelForCausalLM.from_pretrained("exported").eval()
    net, tokens = open_run(run).transformer, torch.arange(24).view(1, -1)
    with torch.no_grad():
        before = model(tokens).logits
        after = peft.PeftModel.from_pretrained(model, "run/adapter").eval()(tokens).logits
        ours = net(tokens)[..., : after.shape[-1]]  # the run's tokenizer has more pieces
    torch.testing.assert_close(ours, after, atol=1e-5, rtol=0)
    assert (before - after).abs().max() > 1e-2
    told = json.loads(Path("run/adapter/adapter_config.json").read_text(encoding="utf-8"))
    assert (told["r"], told["lora_alpha"], told["fan_in_fan_out"]) == (4, 16, name == "gpt2")


def test_such_a_run_is_compressed_exported_and_gone_on_from(
    config: Path, overlay: Overlay, capsys: pytest.CaptureFixture[str]
) -> None:
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    stack = values["model"]["init_args"]["transformer"]["decoder"]
    stack["position"] = {"kind": "alibi"}  # transformers has no such network
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    run = fit(config, "run", *FASTER, "--config", overlay())
    assert "no adapter for peft: Hugging Face's" in capsys.readouterr().out
    assert not (run / "adapter").exists()
    assert main(["compress", "run", "--recipe", "int8", "--out", "small"]) == 0
    assert val_loss("small") == pytest.approx(val_loss(run), abs=0.02)
    still = ("--model.init_args.optimizer.init_args.lr", "1e-12", "--run_dir", "next")
    assert main(["fit", "--from", "run", *still]) == 0
    ours, theirs = (open_run(each).transformer for each in ("run", "next"))
    torch.testing.assert_close(logits(ours), logits(theirs), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_what_makes_no_sense_is_refused(
    config: Path, overlay: Overlay, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = fit(config, "plain", "--trainer.max_steps", "3")
    run = fit(config, "run", "--trainer.max_steps", "3", "--config", overlay())
    last = [str(each / "checkpoints/last.ckpt") for each in (plain, run)]

    def other(name: str, **settings: Any) -> dict[str, Any]:
        return {"class_path": f"gpt4o_lit.callbacks.{name}", "init_args": settings}

    prune = other("MagnitudePruning", schedule={"final": 0.5})
    shrink = other("StructuredPruning", cut={"heads": 0.5})
    dense, adapted = ("--ckpt_path", last[0]), ("--ckpt_path", last[1])
    for others, settings, flags, message in (
        ([], {"enabled": False}, adapted, "put the callback gpt4o_lit.callbacks.LoRA back"),
        ([], {}, dense, "the checkpoint has no adapters, but LoRA adds some here"),
        ([], {"rank": 2}, adapted, "rank (2) is not that of the checkpoint (4)"),
        ([], {"train_also": ["head"]}, adapted, "train_also is not that of the checkpoint"),
        ([prune], {}, (), "MagnitudePruning changes weights that LoRA keeps as they are"),
        ([shrink], {}, (), "StructuredPruning changes weights that LoRA keeps as they are"),
        ([other("QuantizationAwareTraining")], {}, (), "QuantizationAwareTraining changes"),
        ([], {"rank": 0}, (), "rank (0) must be at least 1; set rank to 8"),
        ([], {"alpha": 0}, (), "alpha (0.0) must be above 0; set alpha to twice the rank"),
        ([], {"dropout": 1}, (), "dropout (1.0) must be at least 0 and below 1; set dropout to"),
        ([], {"targets": {"names": ["*.query"]}}, (), "the pattern *.query matches no layer"),
        ([], {"targets": {"kinds": ["head"]}}, (), "targets.kinds (head) must be of attention"),
        ([], {"train_also": ["*.nrm"]}, (), "train_also (*.nrm) matches no layer"),
        ([], {"quantize": {"bits": 4}}, (), "has no kernel; set group_size"),
        ([], {"quantize": {"rounds_inputs": True}}, (), "set rounds_inputs to false"),
    ):
        capsys.readouterr()
        laid = overlay(*others, **settings)
        assert main(["fit", "--config", str(config), "--config", laid, *flags]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if "gpt4o-lit fit:" in line]
        assert len(lines) == 1
        assert message in lines[0]
    off = fit(config, "off", "--trainer.max_steps", "3", "--config", overlay(prune, enabled=False))
    assert "low_rank" not in load(off, "last")
