"""Exports: each is written, opened again as others would open it, and compared."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt4o_lit.interop.compressed_tensors import save_compressed_tensors
from gpt4o_lit.interop.family import Family
from gpt4o_lit.interop.load import open_hugging_face
from gpt4o_lit.interop.run import OpenedRun
from gpt4o_lit.interop.save import SHARD_BYTES, save_hugging_face
from gpt4o_lit.interop.save_tokenizer import save_tokenizer
from gpt4o_lit.model import Transformer
from gpt4o_lit.model.quantized import formats_of, restored_state

# B batch, T target tokens, S source tokens, V vocab

PROGRAM = "model.pt2"
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Compared:
    """How near what was written comes to what was to be written."""

    difference: float
    """Largest difference of two logits."""
    largest: float
    """Largest logit, without its sign."""
    by: str
    """What opened the files."""
    tolerance: float = TOLERANCE
    """Share of the largest logit that rounding may make."""

    @property
    def is_equal(self) -> bool:
        """Whether the difference is no more than rounding makes."""
        return self.difference <= self.tolerance * max(1.0, self.largest)


class MismatchError(Exception):
    """What was written is read otherwise than it was meant."""


def export_hugging_face(
    run: OpenedRun,
    directory: Path,
    *,
    family: str | None = None,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = SHARD_BYTES,
) -> Compared:
    """A directory for AutoModel and AutoTokenizer; opened by transformers where it is installed.

    Raises:
        ValueError: the family, or every one, lacks what the network has; nothing is written.
    """
    chosen = save_hugging_face(
        run.transformer, directory, family=family, tokenizer=run.tokenizer, dtype=dtype,
        max_shard_bytes=max_shard_bytes,
    )  # fmt: skip
    _save_tokenizer(run, directory)
    ours = rounded(run.transformer, dtype)
    if importlib.util.find_spec("transformers") is None:
        again = open_hugging_face(directory)
        return compare(ours, lambda inputs: again(**inputs), "gpt4o-lit")
    return _by_transformers(directory, chosen, ours)


def export_compressed_tensors(
    run: OpenedRun,
    directory: Path,
    *,
    family: str | None = None,
    dtype: torch.dtype | None = None,
) -> list[Compared]:
    """A directory for transformers and vLLM, whole numbers as they are; opened by transformers
    where it and compressed-tensors are installed.

    Raises:
        ValueError: nothing is quantized, or the family's layers cannot be; nothing is written.
    """
    chosen = save_compressed_tensors(
        run.transformer, directory, family=family, tokenizer=run.tokenizer,
        dtype=dtype or torch.float32,
    )  # fmt: skip
    _save_tokenizer(run, directory)
    if any(
        importlib.util.find_spec(name) is None for name in ("transformers", "compressed_tensors")
    ):
        return []
    rounds = any(each.rounds_inputs for each in formats_of(run.transformer).values())
    # They round inputs by 127.5 steps a side, we by 127.
    tolerance = 0.05 if rounds else TOLERANCE
    ours = run.transformer if rounds else rounded(run.transformer, dtype)
    return [replace(_by_transformers(directory, chosen, ours), tolerance=tolerance)]


def _save_tokenizer(run: OpenedRun, directory: Path) -> None:
    save_tokenizer(
        run.tokenizer,
        directory,
        max_seq_len=run.transformer.config.max_seq_len,
        add_bos=run.add_bos,
    )


def _by_transformers(directory: Path, family: Family, ours: Transformer) -> Compared:
    transformers: Any = importlib.import_module("transformers")
    theirs = getattr(transformers, family.architecture).from_pretrained(
        directory, dtype=torch.float32
    )
    is_pair = ours.encoder is not None and ours.decoder is not None

    def logits(inputs: dict[str, Tensor]) -> Tensor:
        names = {"tokens_BT": "decoder_input_ids" if is_pair else "input_ids"}
        names["source_BS"] = "input_ids"
        answer: Tensor = theirs(**{names[name]: ids for name, ids in inputs.items()}).logits
        return answer

    return compare(ours, logits, f"transformers {transformers.__version__}")


def export_program(run: OpenedRun, directory: Path) -> Compared:
    """A program of torch.export with any batch and length: tokens to logits, no code of ours."""
    path = directory / PROGRAM
    if path.exists():
        raise FileExistsError(f"{path}: exists already; choose another directory")
    net, length = run.transformer, run.transformer.config.max_seq_len
    batch = torch.export.Dim("batch", max=1 << 16)
    inputs = {name: ids[:, :7].contiguous() for name, ids in sample_inputs(net, 3).items()}
    shapes = {name: {0: batch, 1: torch.export.Dim(name.lower(), max=length)} for name in inputs}
    with torch.no_grad():
        program = torch.export.export(net, (), kwargs=inputs, dynamic_shapes=shapes)
    directory.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, path)
    again = torch.export.load(path).module()
    return compare(net, lambda given: again(**given), f"torch {torch.__version__}")


def rounded(
    transformer: Transformer, dtype: torch.dtype | None, *, vectors: bool = True
) -> Transformer:
    """A network in float32 whose weights, or all but vectors, are as they become in this dtype."""
    if dtype in (None, torch.float32) and not formats_of(transformer):
        return transformer
    other = Transformer(transformer.config)
    state = restored_state(transformer)
    other.load_state_dict(
        {
            name: weight.to(dtype) if vectors or weight.dim() > 1 else weight
            for name, weight in state.items()
        }
    )
    return other.eval()


def sample_inputs(net: Transformer, rows: int) -> dict[str, Tensor]:
    """Random tokens, as many as the context holds, up to 64."""
    generator = torch.Generator().manual_seed(0)
    length, pieces = min(64, net.config.max_seq_len), net.config.vocab_size or 0

    def draw(count: int) -> Tensor:
        return torch.randint(pieces, (rows, count), generator=generator)

    inputs = {"tokens_BT": draw(length)}
    if net.encoder is not None and net.decoder is not None:
        inputs["source_BS"] = draw(max(1, length - 3))
    return inputs


@torch.no_grad()
def compare(net: Transformer, theirs: Callable[[dict[str, Tensor]], Tensor], by: str) -> Compared:
    """Both on the same random tokens."""
    inputs = sample_inputs(net, 2)
    logits = net(**inputs)
    return Compared(float((logits - theirs(inputs)).abs().max()), float(logits.abs().max()), by)
