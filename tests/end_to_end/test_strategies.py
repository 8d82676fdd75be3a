"""What a run can have under each strategy: its losses are those of one process, to 1e-5.

docs/strategies.md has the same as a table; tests/strategies/test_table.py holds the two together.
"""

import shutil
from pathlib import Path

import pytest
import yaml

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from tests.end_to_end.conftest import weights, write_config
from tests.end_to_end.test_fit import DROPOUT, assert_equal, fit, fit_on

pytestmark = pytest.mark.slow

OFFLOAD = ("--trainer.strategy.init_args.cpu_offload", "true")
STRATEGIES = {
    "ddp": ("--config", "with/ddp"),
    "fsdp2": ("--config", "with/fsdp2"),
    "fsdp2 cpu_offload": ("--config", "with/fsdp2", *OFFLOAD),
    "tensor_parallel": ("--config", "with/tensor_parallel"),
    "deepspeed_zero1": ("--config", "with/deepspeed_zero1"),
    "deepspeed_zero2": ("--config", "with/deepspeed_zero2"),
    "deepspeed_zero3": ("--config", "with/deepspeed_zero3"),
    "deepspeed_zero3_offload": ("--config", "with/deepspeed_zero3_offload"),
}
"""By the names of the table's columns, and variants of them."""
CALLBACK = "--trainer.callbacks"
UNTIED = "--model.init_args.transformer.tie_embeddings=false"
LORA = ("--config", "with/lora", f"{CALLBACK}.dropout", "0")
FEATURES: dict[str, tuple[str, ...]] = {
    "tied embeddings, accumulation, clipping, checkpointing": (
        "--trainer.accumulate_grad_batches=2", "--trainer.gradient_clip_val=0.1",
        "--model.init_args.transformer.decoder.checkpointing=true",
    ),
    "compile, untied": ("--config", "with/compile", UNTIED),
    "bf16-mixed": ("--config", "with/bf16"),
    "LoRA": LORA,
    "QLoRA": (*LORA, f"{CALLBACK}.quantize", "{bits: 4, group_size: 32}"),
    "QuantizationAwareTraining": ("--config", "with/qat_int8"),
    "Int8Training": ("--config", "with/int8_training", "--trainer.precision", "32-true"),
    "Distillation": ("--config", "with/distill", f"{CALLBACK}.init_args.teacher", "../teacher"),
    "Stability": ("--config", "with/stability"),
    "MagnitudePruning": ("--config", "with/prune_magnitude"),
    "MovementPruning": ("--config", "with/prune_movement"),
    "WandaPruning": ("--config", "with/prune_wanda", f"{CALLBACK}.init_args.num_batches", "4"),
    "StructuredPruning": ("--config", "with/prune_structured", f"{CALLBACK}.every", "5"),
}  # fmt: skip
ZERO = tuple(name for name in STRATEGIES if name.startswith("deepspeed"))
PARTS = ("fsdp2", "deepspeed_zero2", "deepspeed_zero3")
CELLS: dict[str, tuple[str, ...]] = {
    "tied embeddings, accumulation, clipping, checkpointing": tuple(STRATEGIES),
    "compile, untied": ("ddp", *PARTS),
    "bf16-mixed": ("ddp", "tensor_parallel", "deepspeed_zero1", *PARTS),
    "LoRA": ("ddp", *PARTS),
    "QLoRA": ("fsdp2", "deepspeed_zero3"),
    "QuantizationAwareTraining": ("ddp", *PARTS),
    "Int8Training": ("ddp", *PARTS),
    "Distillation": ("ddp", *PARTS),
    "Stability": ("ddp", "fsdp2", "tensor_parallel"),
    "MagnitudePruning": ("ddp",),
    "MovementPruning": ("ddp",),
    "WandaPruning": ("ddp",),
    "StructuredPruning": ("ddp",),
}
"""Under which strategies each is tried."""
LOOSER = {"bf16-mixed": 0.02, "QuantizationAwareTraining": 1e-3, "Int8Training": 1e-3}
"""How far losses may be apart where it is more than 1e-5: bfloat16 has 8 bits, and DeepSpeed's
network has it whole; a last bit of a weight may round it to the next of its whole numbers."""
STEPS = ("--trainer.max_steps", "20", "--trainer.log_every_n_steps", "1", DROPOUT, "0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs of a feature lie beside that of one process, and a teacher beside them."""
    return tmp_path_factory.mktemp("strategies")


@pytest.fixture
def alone(feature: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run of one process, which the tests of a feature share; they stand beside it."""
    home = folder / feature.replace(" ", "_")
    home.mkdir(exist_ok=True)
    monkeypatch.chdir(home)
    if not Path("tiny.yaml").exists():
        config = write_config(home)
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
        values["model"]["init_args"]["transformer"]["vocab_size"] = 368  # which two can share
        config.write_text(yaml.safe_dump(values), encoding="utf-8")
    if feature == "Distillation" and not Path("../teacher").exists():
        fit(Path("tiny.yaml"), "../teacher", "--trainer.max_steps", "10")
    if not Path("alone").exists():
        fit(Path("tiny.yaml"), "alone", *given(feature))
    return Path("alone")


def given(feature: str) -> tuple[str, ...]:
    """Flags of a run with it, of 20 steps with a validation behind the last."""
    window = 2 if "accumulation" in feature else 1
    return (*STEPS, *FEATURES[feature], "--trainer.val_check_interval", str(20 * window))


@pytest.mark.parametrize("strategy", ["fsdp2", "tensor_parallel", "deepspeed_zero3"])
@pytest.mark.parametrize("feature", ["StructuredPruning"])
def test_a_network_that_was_cut_goes_on(strategy: str, alone: Path) -> None:
    on = ("--trainer.callbacks", "null", "--trainer.max_steps", "26")
    whole, run = Path("goes_on"), Path(f"goes_on_{strategy}")
    shutil.copytree(alone, run)
    if not whole.exists():
        shutil.copytree(alone, whole)
        assert main(["fit", "--resume", str(whole), *on]) == 0
    half = () if strategy == "tensor_parallel" else ("--data.init_args.batch_size", "2")
    more = (*on, *half, *STRATEGIES[strategy], "--trainer.devices", "2")
    fit_on("--resume", str(run), *more)
    assert_equal(weights(run), weights(whole), atol=1e-4)
    ours, theirs = (read_metrics(each / "metrics.csv")[-1] for each in (run, whole))
    assert ours["train/loss"] == pytest.approx(theirs["train/loss"], abs=1e-5)


@pytest.mark.parametrize(
    ("feature", "strategy"),
    [(feature, strategy) for feature, tried in CELLS.items() for strategy in tried],
)
def test_losses_are_those_of_one_process(feature: str, strategy: str, alone: Path) -> None:
    half = () if strategy == "tensor_parallel" else ("--data.init_args.batch_size", "2")
    run = Path(strategy.replace(" ", "_"))
    shared = ("--config", "tiny.yaml", "--run_dir", str(run), *given(feature))
    fit_on(*shared, *half, *STRATEGIES[strategy], "--trainer.devices", "2")
    ours, theirs = (read_metrics(each / "metrics.csv") for each in (run, alone))
    atol = LOOSER.get(feature, 1e-5)
    for name in ("train/loss", "val/loss", "train/grad_norm", "distillation/loss"):
        here, there = ([row[name] for row in rows if name in row] for rows in (ours, theirs))
        assert here == pytest.approx(there, abs=atol), name
    assert len([row for row in ours if "train/loss" in row]) == 20
    if feature not in LOOSER:
        assert_equal(weights(run), weights(alone), atol=1e-4)  # as near as Adam's division leaves
        assert (run / "samples.md").read_text() == (alone / "samples.md").read_text()
    assert main(["generate", str(run), "--prompt", "the ", "--max_new_tokens", "2"]) == 0
