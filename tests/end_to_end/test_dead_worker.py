"""A worker that dies is named, and nobody waits for it."""

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from gpt4o_lit.__main__ import main
from gpt4o_lit.data import PackedDataModule


def die(rows: list[Any]) -> None:
    """What a system does to a worker that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


class DyingWorker(PackedDataModule):
    def train_dataloader(self) -> Any:
        return DataLoader([0] * 8, num_workers=1, collate_fn=die)  # type: ignore[arg-type]


def test_a_dead_worker_of_a_data_loader_is_one_line_with_its_pid(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = f"--data={DyingWorker.__module__}.DyingWorker"
    assert main(["fit", "--config", str(config), data, "--run_dir", "run"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.match(r"gpt4o-lit fit: DataLoader worker \(pid(\(s\))? \d+\)", line)
    assert line.endswith("; lower num_workers if memory was short")
