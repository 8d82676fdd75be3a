"""What every test shares: few threads, a fixed seed, and the folder with real data, if any."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder to work in for all who follow the documents: corpora are built there once."""
    return tmp_path_factory.mktemp("workshop")


@pytest.fixture
def real_data() -> Path:
    """The folder of real corpora named by GPT4O_LIT_DATA."""
    folder = os.environ.get("GPT4O_LIT_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set GPT4O_LIT_DATA to the folder with the real corpora")
    return Path(folder)
