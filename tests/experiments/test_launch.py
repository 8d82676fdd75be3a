"""Runs as forks of this process, whatever it has done before."""

import os
import time
from pathlib import Path

import pytest
import torch

from gpt4o_lit.experiments import launch
from gpt4o_lit.experiments.launch import Machine
from gpt4o_lit.experiments.record import LOG


@pytest.fixture
def two_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def multiply() -> float:
    """Large enough for a team of threads."""
    x = torch.ones(600, 600, requires_grad=True)
    (x @ x).sum().backward()
    assert x.grad is not None
    return float(x.grad.sum())


def test_a_fork_computes_though_its_parent_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_threads: object
) -> None:
    expected, parent = multiply(), os.getpid()

    def fit(arguments: list[str], path: Path) -> int:
        assert os.getpid() != parent
        print(arguments[0], multiply())
        return 7

    monkeypatch.setattr(launch, "fit", fit)
    for number in range(3):
        job = Machine().start([f"run {number}"], tmp_path)
        deadline = time.monotonic() + 60
        while job.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if job.poll() is None:
            job.kill()
        assert job.poll() == 7
    lines = (tmp_path / LOG).read_text(encoding="utf-8").splitlines()
    assert lines == [f"run {number} {expected}" for number in range(3)]
