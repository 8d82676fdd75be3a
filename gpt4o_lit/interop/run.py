"""Opens what `fit` left: the network and the tokenizer of a run."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import Tensor

from gpt4o_lit.interop.checkpoints import load_checkpoint
from gpt4o_lit.interop.compressed import (
    USES,
    is_compressed,
    load_compressed,
    save_compressed,
)
from gpt4o_lit.interop.files import SINGLE
from gpt4o_lit.model import Transformer, TransformerConfig
from gpt4o_lit.model.low_rank import merged_state
from gpt4o_lit.model.position import FixedTable
from gpt4o_lit.model.quantized import QuantizedWeight, place_
from gpt4o_lit.model.weight_format import WeightFormat, as_stored
from gpt4o_lit.run_directory import RunDirectory
from gpt4o_lit.tokenizer import Tokenizer, load_tokenizer

PREFIX = "transformer."
SCALES = "fake.log_scales"  # that quantization-aware training has learned, by their layer


@dataclass(frozen=True)
class OpenedRun:
    """A run that is ready to be used."""

    transformer: Transformer
    """In evaluation mode, on the CPU."""
    tokenizer: Tokenizer
    checkpoint: Path
    """The file that the weights are from."""
    path: Path
    """The run's directory."""
    add_bos: bool
    """Whether the corpus of the run has bos before each document."""
    bidirectional_prompt: bool = False
    """Whether the run has learned to read the beginning of a document both ways (prefix LM)."""
    fills_gaps: bool = False
    """Whether the run, a decoder, has learned to fill gaps in documents (fill in the middle)."""
    source_eos: bool = False
    """Whether what its encoder reads for its decoder has always ended with eos (T5, Marian)."""
    classification: dict[str, Any] | None = None
    """Of what tells classes apart: `classes` (their names), `pool` and `multi_label`."""


def open_run(path: Path | str, checkpoint: Literal["best", "last"] = "best") -> OpenedRun:
    """The network and tokenizer of a run's directory, or of one that `compress` made.

    `best` is the checkpoint with the lowest validation loss; a run that has not been validated yet
    has none, and its last one is taken; `checkpoint` of the result tells which. A network that was
    trained as if it were quantized comes quantized; one that was trained by adapters of low rank
    comes with these added to its weights, of floats even where they lay beside whole numbers.

    Raises:
        FileNotFoundError: no run there, or no checkpoint yet.
        ValueError: the checkpoint is not one of this framework's runs.
    """
    run = RunDirectory.existing(str(path))
    if is_compressed(run.path):
        return _open_compressed(run)
    file = run.last_checkpoint if checkpoint == "last" else run.best_checkpoint
    saved = load_checkpoint(file)
    config = read_config(saved, file)
    transformer = _filled(config, read_weights(saved), file)
    _convert_(transformer, saved)
    tokenizer = load_tokenizer(run.path / "tokenizer")
    return OpenedRun(
        transformer.eval(),
        tokenizer,
        file,
        run.path,
        add_bos=_adds_bos(run.config),
        **{name: saved[name] for name in USES if name in saved},
    )


def save_opened(opened: OpenedRun, directory: Path) -> None:
    """What a run opens as, packed, with its tokenizer and its config."""
    save_compressed(
        opened.transformer,
        opened.tokenizer,
        directory,
        {name: getattr(opened, name) for name in USES},
    )
    shutil.copy2(RunDirectory(opened.path).config, directory / "config.yaml")


def _open_compressed(run: RunDirectory) -> OpenedRun:
    transformer, settings = load_compressed(run.path)
    return OpenedRun(
        transformer,
        load_tokenizer(run.path / "tokenizer"),
        run.path / SINGLE,
        run.path,
        add_bos=_adds_bos(run.config),
        **{name: settings[name] for name in USES if name in settings},
    )


def _convert_(transformer: Transformer, saved: dict[str, Any]) -> None:
    """Round what training saw rounded, with the scales that it learned, if any."""
    weights: dict[str, QuantizedWeight] = {}
    for name, values in saved.get("trained_as", {}).items():
        weight, format = transformer.get_submodule(name).weight, WeightFormat(**values)
        assert isinstance(weight, Tensor)
        logs = saved["state_dict"].get(f"{PREFIX}{name}.{SCALES}")
        learned = logs is not None and logs.any()
        scales = as_stored(format.scales_of_sizes(logs, weight)) if learned else None
        weights[name] = QuantizedWeight.rounding(weight, format, scales)
    place_(transformer, weights)


def read_config(saved: dict[str, Any], file: Path) -> TransformerConfig:
    """The network that a checkpoint describes."""
    if "transformer_config" not in saved:
        raise ValueError(f"{file} has no transformer_config; give a directory that `fit` made")
    return TransformerConfig.from_dict(saved["transformer_config"])


def require_same_network(file: Path, config: TransformerConfig) -> None:
    """Refuse a checkpoint whose weights would not fit the network of a config.

    Raises:
        ValueError: naming the first weight that differs, or a file that is damaged.
    """
    saved = load_checkpoint(file, parts=False)
    theirs = read_config(saved, file)
    ours = replace(config, vocab_size=theirs.vocab_size, num_classes=theirs.num_classes)
    if saved.get("cut_from", theirs.to_dict()) == ours.to_dict():
        return
    with torch.device("meta"):
        in_file, here = (
            {name: tuple(weight.shape) for name, weight in Transformer(each).state_dict().items()}
            for each in (theirs, ours)
        )
    for name in [*here, *in_file]:
        if here.get(name) != in_file.get(name):
            raise ValueError(
                f"{file} is of another network: {name} is {in_file.get(name, 'absent')} in it and "
                f"{here.get(name, 'absent')} in the config; go on with the run's own config, or "
                "begin a new run with its weights by `gpt4o-lit fit --from RUN`"
            )


def read_weights(saved: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of a checkpoint by the network's own names; adapters are added to theirs.

    They are still on disk, but for those that have an adapter or are whole numbers.
    """
    state = {
        name.removeprefix(PREFIX): weight
        for name, weight in saved["state_dict"].items()
        if name.startswith(PREFIX) and not name.endswith(SCALES)
    }
    return merged_state(state, saved.get("low_rank", {}))


def _filled(config: TransformerConfig, weights: dict[str, Tensor], file: Path) -> Transformer:
    """The network with these weights; nothing is drawn at random and memory is taken once."""
    with torch.device("meta"):
        transformer = Transformer(config)
    shapes = {name: weight.shape for name, weight in transformer.state_dict().items()}
    found = {name: weight.shape for name, weight in weights.items()}
    unfit = sorted(n for n in shapes.keys() | found.keys() if shapes.get(n) != found.get(n))
    if unfit:
        raise ValueError(
            f"{file}: {len(unfit)} weights do not fit its transformer_config, the first is "
            f"{unfit[0]}; use the version of gpt4o-lit that wrote it"
        )
    transformer.to_empty(device="cpu")
    if config.ties_head:
        transformer.head.weight = transformer.tokens.weight
    transformer.load_state_dict(weights)
    for part in transformer.modules():
        if isinstance(part, FixedTable):
            part.reset_buffers()
    return transformer


def _adds_bos(config: Path) -> bool:
    """What config.yaml says of the corpus; a data module of another kind adds none."""
    values: Any = yaml.safe_load(config.read_text(encoding="utf-8"))
    for name in ("data", "init_args", "corpus", "add_bos"):
        values = values.get(name) if isinstance(values, dict) else None
    return values is True
