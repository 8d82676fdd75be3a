"""Saves a tiny random model as Hugging Face does."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from .tiny_hugging_face import make


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., tuple[nn.Module, Path]]:
    """Make a model by name and save it; gives the model and the directory."""

    def save(name: str, **options: str) -> tuple[nn.Module, Path]:
        model, directory = make(name), tmp_path / "theirs"
        model.save_pretrained(directory, **options)
        return model, directory

    return save
