"""From a text file to a trained, sampled, described run; stopped and gone on with."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from tests.end_to_end.conftest import give, load, weights

DROPOUT = "--model.init_args.transformer.decoder.dropout"


def fit(config: Path, run: str, *flags: str) -> Path:
    assert main(["fit", "--config", str(config), "--run_dir", run, *flags]) == 0
    return Path(run)


def assert_equal(
    ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], atol: float
) -> None:
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        apart = (weight - theirs[name]).abs().max()
        assert apart <= atol, f"{name} is {apart} apart"


def assert_same_losses(ours: Path, theirs: Path) -> None:
    both = (
        [row["train/loss"] for row in read_metrics(run / "metrics.csv") if "train/loss" in row]
        for run in (ours, theirs)
    )
    assert next(both) == pytest.approx(next(both), abs=1e-5)


def test_a_run_leaves_everything_in_its_directory(config: Path) -> None:
    run = fit(config, "run", "--model_card.measure", "true")
    for name in (
        "config.yaml", "manifest.json", "metrics.csv", "samples.md", "MODEL_CARD.md",
        "checkpoints/best.ckpt", "checkpoints/last.ckpt", "checkpoints/config.yaml",
        "plots/loss.png", "plots/learning_rate.png", "plots/tokens_per_second.png",
    ):  # fmt: skip
        assert (run / name).stat().st_size > 0, name
    rows = read_metrics(run / "metrics.csv")
    assert len(rows) == 6
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    assert all("perf/tokens_per_second" in row for row in rows)
    validated = [row for row in rows if "val/loss" in row]
    assert len(validated) == 2
    assert validated[1]["val/bits_per_byte"] < validated[0]["val/bits_per_byte"]
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["steps"] == 6
    assert manifest["data"]["checksum"]
    assert manifest["data"]["tokenizer"] == "bytes-1"
    assert len(manifest["code"]) == 16
    assert manifest["deployment"]["weight_bytes"] == 4 * manifest["parameters"]
    assert manifest["bytes_per_parameter"] == 4
    assert "What does it cost to deploy?" in (run / "MODEL_CARD.md").read_text()
    assert (run / "samples.md").read_text().count("## Step") == 2


def test_bits_per_byte_of_bytes_is_the_loss_in_bits(config: Path) -> None:
    row = read_metrics(fit(config, "run") / "metrics.csv")[-1]
    per_token = row["val/loss"] / torch.log(torch.tensor(2.0)).item()
    # Each line of the text ends with eos, which is a target but no byte of text.
    assert per_token < row["val/bits_per_byte"] < per_token * 1.1


def test_a_run_is_never_overwritten(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(config, "run")
    assert main(["fit", "--config", str(config), "--run_dir", "run"]) == 2
    assert "go on with it by --resume run" in capsys.readouterr().err


def test_a_run_that_was_stopped_equals_one_that_never_was(config: Path) -> None:
    whole = fit(config, "whole")
    fit(config, "stopped", "--trainer.max_steps", "3")
    assert main(["fit", "--resume", "stopped", "--trainer.max_steps", "6"]) == 0
    assert_equal(weights(whole), weights(Path("stopped")), atol=0)
    metrics = [read_metrics(Path(run) / "metrics.csv") for run in ("whole", "stopped")]
    for name in ("train/loss", "perf/tokens", "perf/flops"):
        assert [row[name] for row in metrics[0]] == [row[name] for row in metrics[1]]
    seconds = [row["perf/seconds"] for row in metrics[1]]
    assert seconds == sorted(set(seconds))


@pytest.mark.slow
def test_a_run_resumed_by_another_process_equals_one_that_never_was_stopped(config: Path) -> None:
    def process(*arguments: str) -> None:
        command = [sys.executable, "-m", "gpt4o_lit", "fit", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]

    process("--config", str(config), "--run_dir", "whole")
    process("--config", str(config), "--run_dir", "stopped", "--trainer.max_steps", "3")
    process("--resume", "stopped", "--trainer.max_steps", "6")
    assert_equal(weights(Path("whole")), weights(Path("stopped")), atol=0)


def test_a_run_goes_on_from_a_step_between_validations(config: Path) -> None:
    whole = fit(config, "whole")
    fit(config, "stopped", "--trainer.max_steps", "4")
    rows = read_metrics(Path("stopped/metrics.csv"))
    assert [row["step"] for row in rows if "val/loss" in row] == [2, 3]  # the last step too
    assert main(["fit", "--resume", "stopped", "--trainer.max_steps", "6"]) == 0
    assert_equal(weights(whole), weights(Path("stopped")), atol=0)


@pytest.mark.slow
def test_the_bar_counts_the_whole_epoch_wherever_a_run_goes_on(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(config, "run", "--trainer.max_steps", "4", "--progress.refresh_rate", "1")
    assert "Epoch 0: 100%|██████████| 4/4 " in capsys.readouterr().out
    steps = ("--trainer.max_steps", "14", "--trainer.val_check_interval", "4")
    many = ("--trainer.accumulate_grad_batches", "2")
    assert main(["fit", "--resume", "run", *steps, *many]) == 0
    shown = capsys.readouterr().out
    assert " 5/24 " in shown
    assert "Epoch 0: 100%|██████████| 24/24 " in shown


def test_best_is_the_best_and_last_is_the_last(config: Path) -> None:
    steps = ("--trainer.max_steps", "12", "--trainer.val_check_interval", "2")
    # The learning rate rises to the end, and the loss with it.
    lr = ("--model.init_args.optimizer.init_args.lr", "3.0")
    rises = ("--model.init_args.schedule", "gpt4o_lit.optim.WarmupCosine",
             "--model.init_args.schedule.init_args.warmup", "0.99")  # fmt: skip
    run = fit(config, "run", *steps, *lr, *rises)
    losses = [row["val/loss"] for row in read_metrics(run / "metrics.csv") if "val/loss" in row]
    assert len(losses) == 6
    assert losses[-1] > min(losses)
    steps = {name: load(run, name)["global_step"] for name in ("best", "last")}
    assert steps == {"best": 2 * losses.index(min(losses)) + 2, "last": 12}


@pytest.mark.parametrize(
    "sign", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_run_that_is_told_to_stop_keeps_its_best_and_goes_on_exactly(
    sign: signal.Signals, config: Path
) -> None:
    steps = ("--trainer.max_steps", "400", "--trainer.val_check_interval", "100")
    whole = fit(config, "whole", *steps)
    command = [sys.executable, "-m", "gpt4o_lit", "fit", "--config", str(config)]
    process = subprocess.Popen([*command, "--run_dir", "run", *steps])
    metrics, deadline = Path("run/metrics.csv"), time.monotonic() + 120
    while len(read_metrics(metrics) if metrics.is_file() else []) < 120:
        assert process.poll() is None, "the run ended before it was told to stop"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(sign)
    assert process.wait(timeout=60) == 128 + sign
    stopped = load(Path("run"), "last")["global_step"]
    assert 120 <= stopped < 400
    assert load(Path("run"), "best")["global_step"] == stopped // 100 * 100
    assert main(["fit", "--resume", "run"]) == 0
    assert_equal(weights(whole), weights(Path("run")), atol=0)


def test_flags_outrank_the_settings_of_a_run_that_goes_on(config: Path) -> None:
    fit(config, "run", "--trainer.max_steps", "3")
    optimizer = "--model.init_args.optimizer.init_args"
    flags = ["--trainer.max_steps", "4", f"{optimizer}.weight_decay", "0.5", f"{optimizer}.lr=1e-5"]
    assert main(["fit", "--resume", "run", *flags]) == 0
    saved = load(Path("run"), "last")
    groups = saved["optimizer_states"][0]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
    assert [group["lr"] for group in groups] == [1e-5, 1e-5]
    assert read_metrics(Path("run/metrics.csv"))[-1]["train/lr"] == pytest.approx(1e-5)
    assert "lr: 1.0e-05" in Path("run/config.yaml").read_text()
    assert "lr: 0.003" in Path("run/config_before_1.yaml").read_text()


def test_weights_are_refused_for_other_pieces(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pieces = "--data.init_args.tokenizer.class_path=gpt4o_lit.tokenizer.TrainSentencePiece"
    size = "--data.init_args.tokenizer.init_args.vocab_size=400"
    run = fit(config, "run", pieces, size, "--trainer.max_steps", "3")
    before = (run / "tokenizer" / "tokenizer.model").read_bytes()
    text = Path("text.txt").read_text()
    Path("text.txt").write_text(text.replace("cat", "bird"))
    for verb in ("fit", "test"):
        assert main([verb, "--resume", "run"]) == 2
        assert "the data's tokenizer has changed" in capsys.readouterr().err
    assert (run / "tokenizer" / "tokenizer.model").read_bytes() == before


def test_a_finished_run_that_is_resumed_keeps_its_figures(config: Path) -> None:
    run = fit(config, "run", "--trainer.max_steps", "3")
    kept = {name: (run / name).read_text() for name in ("MODEL_CARD.md", "metrics.csv")}
    metrics = json.loads((run / "manifest.json").read_text())["metrics"]
    assert "val/loss" in metrics
    assert main(["fit", "--resume", "run"]) == 0
    assert {name: (run / name).read_text() for name in kept} == kept
    assert json.loads((run / "manifest.json").read_text())["metrics"] == metrics


def test_a_runs_config_is_good_for_another_run(config: Path) -> None:
    fit(config, "run", "--trainer.max_steps", "3")
    assert main(["fit", "--config", "run/config.yaml"]) == 0
    (other,) = Path("runs/tiny").iterdir()
    assert_equal(weights(Path("run")), weights(other), atol=0)


def test_trainer_switches_are_honoured(config: Path) -> None:
    flags = ("--trainer.enable_progress_bar=false", "--trainer.enable_checkpointing=false")
    run = fit(config, "run", *flags, "--trainer.max_steps", "3", "--trainer.limit_val_batches=0")
    assert not (run / "checkpoints").exists()
    fit(config, "dry", "--trainer.fast_dev_run", "true")
    assert not Path("dry/samples.md").exists()


def test_overfitting_reads_the_same_batches_each_epoch(config: Path) -> None:
    flags = ("--trainer.overfit_batches=2", DROPOUT, "0", "--trainer.max_steps", "60")
    rows = read_metrics(fit(config, "run", *flags) / "metrics.csv")
    assert rows[-1]["train/loss"] < 0.6 * rows[0]["train/loss"]


def test_predict_writes_the_loss_of_every_token(config: Path) -> None:
    fit(config, "run")
    assert main(["test", "--resume", "run", "--run_dir", "tested"]) == 0
    assert main(["predict", "--resume", "run"]) == 0
    (path,) = Path("run/predict").rglob("predictions.csv")
    with path.open(encoding="utf-8", newline="") as file:
        nats = [float(row["nats"]) for row in csv.DictReader(file)]
    loss = read_metrics(Path("tested/metrics.csv"))[-1]["test/loss"]
    assert sum(nats) / len(nats) == pytest.approx(loss, abs=1e-4)


def test_samples_change_nothing_in_training(config: Path) -> None:
    with_samples = fit(config, "with")
    without = fit(config, "without", "--samples.enabled", "false")
    assert_equal(weights(with_samples), weights(without), atol=0)
    assert not (without / "samples.md").exists()


def test_four_micro_batches_of_one_equal_one_batch_of_four(config: Path) -> None:
    flags = (DROPOUT, "0", "--trainer.max_steps", "3")
    whole = fit(config, "whole", *flags)
    flags += ("--data.init_args.batch_size", "1", "--trainer.accumulate_grad_batches", "4")
    flags += ("--trainer.val_check_interval", "12")
    parts = fit(config, "parts", *flags)
    assert_equal(weights(whole), weights(parts), atol=1e-5)
    assert_same_losses(whole, parts)


def fit_on_two(*flags: str, strategy: str = "with/ddp") -> None:
    fit_on(*flags, "--config", strategy, "--trainer.devices", "2")


def fit_on(*flags: str, limit_bytes: int | None = None, verb: str = "fit") -> None:
    """A run in processes of its own, as many as the flags say, whose files may be so large."""
    command = [sys.executable, "-m", "gpt4o_lit", verb, *flags]
    if limit_bytes is not None:
        command = ["prlimit", f"--fsize={limit_bytes}", *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_equal_one(config: Path) -> None:
    flags = [DROPOUT, "0", "--trainer.max_steps", "3"]
    alone = fit(config, "alone", *flags)
    half = "--data.init_args.batch_size=2"
    fit_on_two("--config", str(config), "--run_dir", "together", *flags, half)
    assert_equal(weights(alone), weights(Path("together")), atol=1e-5)
    assert_same_losses(alone, Path("together"))
    ours, theirs = (read_metrics(Path(r) / "metrics.csv")[-1] for r in ("alone", "together"))
    assert ours["val/loss"] == pytest.approx(theirs["val/loss"], abs=1e-5)


@pytest.mark.slow
def test_two_processes_draw_their_own_dropout_and_go_on_exactly(config: Path) -> None:
    fit_on_two("--config", str(config), "--run_dir", "whole", DROPOUT, "0.5")
    flags = (DROPOUT, "0.5", "--trainer.max_steps", "3")
    fit_on_two("--config", str(config), "--run_dir", "stopped", *flags)
    saved = load(Path("stopped"), "last")["callbacks"]["RandomState"]["ranks"]
    coins = []
    for state in saved:
        generator = torch.Generator()
        generator.set_state(state["torch"])
        coins.append(torch.rand(8, generator=generator))
    assert not torch.equal(*coins)
    fit_on_two("--resume", "stopped", "--trainer.max_steps", "6")
    assert_equal(weights(Path("whole")), weights(Path("stopped")), atol=0)


def test_a_validation_within_a_step_is_refused(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--run_dir", "run", "--trainer.accumulate_grad_batches", "2"]
    assert main(["fit", "--config", str(config), *flags]) == 2
    assert "accumulate_grad_batches (2)" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_a_run_can_be_measured_again(verb: str, config: Path) -> None:
    run = fit(config, "run")
    assert main([verb, "--resume", "run"]) == 0
    (again,) = (run / verb).rglob("metrics.csv")
    split = "val" if verb == "validate" else "test"
    assert f"{split}/loss" in read_metrics(again)[-1]
    if verb == "validate":
        last = read_metrics(run / "metrics.csv")[-1]["val/loss"]
        assert read_metrics(again)[-1]["val/loss"] == pytest.approx(last, abs=1e-6)


@pytest.mark.parametrize(
    ("stacks", "objective"),
    [
        (["encoder"], "MaskedLM"),
        (["encoder", "decoder"], "SpanCorruption"),
        (["decoder"], "PrefixLM"),
    ],
)
def test_an_objective_is_one_key_away(stacks: list[str], objective: str, config: Path) -> None:
    give(config, stacks, objective)
    run = fit(config, "run", "--trainer.max_steps", "12")
    rows = read_metrics(run / "metrics.csv")
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    assert (run / "samples.md").is_file()
    assert 0 < rows[-1]["val/bits_per_byte"] < 10


def test_generate_writes_behind_a_prompt(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(config, "run")
    capsys.readouterr()
    call = ["generate", "run", "--prompt", "the cat ", "--max_new_tokens", "12"]
    assert main(call) == 0
    first = capsys.readouterr().out
    assert first.startswith("the cat ")
    assert main(call) == 0
    assert capsys.readouterr().out == first


def test_wandb_offline_and_tensorboard_write_into_the_run(config: Path) -> None:
    run = fit(config, "run", "--config", "with/wandb", "--config", "with/tensorboard")
    assert list(run.glob("wandb/offline-run-*"))
    assert (run / "wandb_id").is_file()
    assert list(run.glob("tensorboard/events.out.tfevents.*"))
    assert (run / "config.yaml").is_file()
    assert not Path("config.yaml").exists()


def test_a_checkpoint_is_plain_data(config: Path) -> None:
    run = fit(config, "run")
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["transformer_config"]["decoder"]["num_layers"] == 2


@pytest.mark.slow
def test_a_compiled_run_learns_the_same_and_keeps_the_keys(config: Path) -> None:
    plain = fit(config, "plain", DROPOUT, "0")
    compiled = fit(config, "compiled", "--config", "with/compile", DROPOUT, "0")
    assert_equal(weights(plain), weights(compiled), atol=1e-4)
    dropped = fit(config, "dropped", "--config", "with/compile", DROPOUT, "0.5")
    assert weights(dropped).keys() == weights(plain).keys()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--trainer.accelerator", "tpu"], "torch_xla"),
        (["--data.init_args.corpus.sources", "[nowhere/]"], "nowhere"),
    ],
)
def test_a_run_that_cannot_start_is_one_line_and_leaves_no_directory(
    flags: list[str], message: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(config), *flags]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert error.startswith("gpt4o-lit fit: ")
    assert len(error.splitlines()) == 1
    assert not list(Path("runs/tiny").iterdir())
