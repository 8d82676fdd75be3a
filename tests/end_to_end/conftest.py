"""A tiny corpus and a config that trains on it in a second."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gpt4o_lit.__main__ import main
from gpt4o_lit.callbacks.metrics_log import read_metrics
from gpt4o_lit.interop.checkpoints import load_checkpoint

WORDS = ["the", "a", "cat", "dog", "sees", "eats", "likes", "big", "small", "red", "green"]

Fit = Callable[..., Path]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with a text of short documents in it."""
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)
    return tmp_path


def write_text(home: Path) -> None:
    """The text of short documents."""
    generator = torch.Generator().manual_seed(0)
    lines = []
    for _ in range(400):
        length = int(torch.randint(2, 12, (1,), generator=generator))
        chosen = torch.randint(0, len(WORDS), (length,), generator=generator)
        lines.append(" ".join(WORDS[i] for i in chosen))
    (home / "text.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def config(home: Path) -> Path:
    """A complete config: bytes as tokens, two layers, a constant learning rate, dropout."""
    return write_config(home)


def write_config(home: Path) -> Path:
    """That config, beside its text."""
    write_text(home)
    stack = {
        "num_layers": 2,
        "dim": 32,
        "dropout": 0.1,
        "attention": {"num_heads": 2},
    }
    values = {
        "name": "tiny",
        "model": {
            "class_path": "gpt4o_lit.tasks.Pretraining",
            "init_args": {
                "objective": {"class_path": "gpt4o_lit.objectives.CausalLM"},
                "transformer": {"max_seq_len": 32, "decoder": stack},
                "optimizer": {
                    "class_path": "gpt4o_lit.optim.AdamW",
                    "init_args": {"lr": 0.003},
                },
                "schedule": {"class_path": "gpt4o_lit.optim.Constant"},
            },
        },
        "data": {
            "class_path": "gpt4o_lit.data.PackedDataModule",
            "init_args": {
                "directory": "corpus",
                "corpus": {
                    "sources": ["text.txt"],
                    "documents": "line",
                    "deduplicate": False,
                    "valid_fraction": 0.1,
                    "test_fraction": 0.1,
                },
                "tokenizer": {"class_path": "gpt4o_lit.tokenizer.Bytes"},
                "seq_len": 32,
                "batch_size": 4,
                "num_workers": 0,
            },
        },
        "trainer": {
            "accelerator": "cpu",
            "max_steps": 6,
            "val_check_interval": 3,
            "check_val_every_n_epoch": None,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
            "gradient_clip_val": 1.0,
            "enable_model_summary": False,
        },
        "progress": {"refresh_rate": 0},
        "model_card": {"measure": False},
        "samples": {"prompts": ["the "], "max_new_tokens": 8},
    }
    path = home / "tiny.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def load(run: Path, checkpoint: str) -> dict[str, Any]:
    """A checkpoint of a run."""
    return load_checkpoint(run / "checkpoints" / f"{checkpoint}.ckpt", mmap=False)


def weights(run: Path, checkpoint: str = "last") -> dict[str, torch.Tensor]:
    """The weights that a run saved."""
    return dict(load(run, checkpoint)["state_dict"])


def give(config: Path, stacks: list[str], objective: str) -> None:
    """Change the config to a network of these stacks that learns by this objective."""
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    arguments = values["model"]["init_args"]
    stack = arguments["transformer"].pop("decoder")
    arguments["transformer"] |= dict.fromkeys(stacks, stack)
    arguments["objective"]["class_path"] = f"gpt4o_lit.objectives.{objective}"
    values["samples"] = {}
    config.write_text(yaml.safe_dump(values), encoding="utf-8")


def kill_and_resume(config: Path, flags: tuple[str, ...], rows: int) -> int:
    """Kill a run in `run` once it has logged so many steps, go on; the step it went on from."""
    command = [sys.executable, "-m", "gpt4o_lit", "fit", "--config", str(config), *flags]
    process = subprocess.Popen([*command, "--run_dir", "run"])
    metrics, deadline = Path("run/metrics.csv"), time.monotonic() + 120
    while len(read_metrics(metrics) if metrics.is_file() else []) < rows:
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait(timeout=60)
    stopped = load(Path("run"), "last")["global_step"]
    assert main(["fit", "--resume", "run"]) == 0
    return int(stopped)
