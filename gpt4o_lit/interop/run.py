"""Opens what `fit` left: the network and the tokenizer of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from gpt4o_lit.model import Transformer, TransformerConfig
from gpt4o_lit.run_directory import RunDirectory
from gpt4o_lit.tokenizer import Tokenizer, load_tokenizer

PREFIX = "transformer."


@dataclass(frozen=True)
class OpenedRun:
    """A run that is ready to be used."""

    transformer: Transformer
    """In evaluation mode, on the CPU."""
    tokenizer: Tokenizer
    checkpoint: Path
    """The file that the weights are from."""


def open_run(path: Path | str, checkpoint: Literal["best", "last"] = "best") -> OpenedRun:
    """The network and tokenizer of a run's directory.

    `best` is the checkpoint with the lowest validation loss; a run that has not been validated yet
    has none, and its last one is taken.

    Raises:
        FileNotFoundError: no run there, or no checkpoint yet.
        ValueError: the checkpoint is not one of this framework's runs.
    """
    run = RunDirectory.existing(str(path))
    file = run.checkpoints / "best.ckpt"
    if checkpoint == "last" or not file.is_file():
        file = run.last_checkpoint
    saved: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    if "transformer_config" not in saved:
        raise ValueError(f"{file} has no transformer_config; give a directory that `fit` made")
    config = TransformerConfig.from_dict(saved["transformer_config"])
    weights = {
        name.removeprefix(PREFIX): weight
        for name, weight in saved["state_dict"].items()
        if name.startswith(PREFIX)
    }
    transformer = Transformer(config)
    transformer.load_state_dict(weights)
    return OpenedRun(transformer.eval(), load_tokenizer(run.path / "tokenizer"), file)
