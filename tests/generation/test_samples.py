"""Samples of a run in training: they write a section and leave everything as it was."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gpt4o_lit.callbacks import Samples
from gpt4o_lit.data import PackedDataModule
from gpt4o_lit.generation import PromptFormat, SamplingConfig, generate
from gpt4o_lit.model import AttentionConfig, StackConfig, Transformer, TransformerConfig
from gpt4o_lit.objectives import CausalLM, PrefixLM
from gpt4o_lit.tokenizer import ByteTokenizer

tokenizer = ByteTokenizer()
DOCUMENTS = ["first of all", "two", "the third ```text```", "the fourth"]


class Valid:
    """A validation split of a few documents, each with eos behind it."""

    def __init__(self) -> None:
        rows = [[*tokenizer.encode(text), tokenizer.eos_id] for text in DOCUMENTS]
        self.all = np.concatenate([np.array(row) for row in rows])
        self.starts = np.cumsum([0, *map(len, rows)])[:-1]
        self.num_tokens = len(self.all)

    @property
    def document_starts(self) -> np.ndarray:
        return self.starts

    def tokens(self, start: int, stop: int) -> np.ndarray:
        return self.all[start:stop]


def training(kind: str, directory: Path) -> tuple[Any, Any]:
    """A Trainer's and a task's attributes that Samples reads."""
    stack = StackConfig(num_layers=2, dim=16, dropout=0.5, attention=AttentionConfig(num_heads=2))
    config = TransformerConfig(
        encoder=stack if kind != "decoder" else None,
        decoder=stack if kind != "encoder" else None,
        vocab_size=tokenizer.vocab_size,
        max_seq_len=64,
    )
    data: Any = SimpleNamespace(
        _opened=lambda: SimpleNamespace(split=lambda name: Valid()), tokenizer=tokenizer
    )
    data.prompts = partial(PackedDataModule.prompts, data)
    trainer = SimpleNamespace(
        sanity_checking=False,
        fast_dev_run=False,
        state=SimpleNamespace(fn="fit"),
        is_global_zero=True,
        strategy=None,
        global_step=7,
        callback_metrics={"val/loss": torch.tensor(1.25)},
        default_root_dir=str(directory),
        loggers=[],
        datamodule=data,
    )
    return trainer, SimpleNamespace(transformer=Transformer(config).train())


@pytest.mark.parametrize("kind", ["decoder", "encoder", "encoder_decoder"])
def test_a_section_holds_step_loss_and_a_block_per_document(kind: str, tmp_path: Path) -> None:
    trainer, task = training(kind, tmp_path)
    Samples(max_new_tokens=8).on_validation_end(trainer, task)
    text = (tmp_path / "samples.md").read_text(encoding="utf-8")
    assert text.startswith("## Step 7, validation loss 1.2500\n")
    assert text.count("```text\n") == 3
    assert "fourth" not in text
    if kind != "encoder":
        assert all(beginning[:12] in text for beginning in DOCUMENTS[:3])


@pytest.mark.parametrize("objective", [CausalLM(), PrefixLM()])
def test_a_prompt_is_read_as_the_objective_has_taught(objective: Any, tmp_path: Path) -> None:
    trainer, task = training("decoder", tmp_path)
    task.objective = objective
    for weight in task.transformer.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    config = SamplingConfig(max_new_tokens=8, temperature=0)
    Samples(prompts=["a prompt"], max_new_tokens=8, temperature=0).on_validation_end(trainer, task)
    net = task.transformer.eval()
    causal, both_ways = (
        generate(
            net, tokenizer, ["a prompt"], config, prompt_format=PromptFormat(bidirectional=flag)
        )[0]
        for flag in (False, True)
    )
    assert causal != both_ways
    expected = both_ways if isinstance(objective, PrefixLM) else causal
    assert f"a prompt{expected}\n```" in (tmp_path / "samples.md").read_text(encoding="utf-8")


def test_modes_and_random_state_are_as_before(tmp_path: Path) -> None:
    trainer, task = training("decoder", tmp_path)
    task.transformer.decoder.blocks[0].eval()  # frozen by somebody else
    modes = [part.training for part in task.transformer.modules()]
    before = torch.get_rng_state()
    Samples(max_new_tokens=8).on_validation_end(trainer, task)
    assert [part.training for part in task.transformer.modules()] == modes
    assert torch.equal(torch.get_rng_state(), before)


def test_every_second_validation_and_no_sanity_check_is_written(tmp_path: Path) -> None:
    trainer, task = training("decoder", tmp_path)
    samples = Samples(max_new_tokens=2, every_n_validations=2)
    trainer.sanity_checking = True
    samples.on_validation_end(trainer, task)
    trainer.sanity_checking = False
    for _ in range(4):
        samples.on_validation_end(trainer, task)
    assert (tmp_path / "samples.md").read_text(encoding="utf-8").count("## Step") == 2
    with pytest.raises(ValueError, match="every_n_validations"):
        Samples(every_n_validations=0)


@pytest.mark.parametrize(
    ("kind", "prompt", "message"),
    [
        ("decoder", "long " * 20, "the prompt has 100 tokens, more than max_seq_len \\(64\\)"),
        ("encoder_decoder", "long " * 20, "more than max_seq_len"),
        ("encoder", "no gap", "the text has no <mask> to fill"),
        ("encoder", "<mask>" * 65, "a row has 65 tokens, more than max_seq_len \\(64\\)"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_refused_before_training(
    kind: str, prompt: str, message: str, tmp_path: Path
) -> None:
    trainer, task = training(kind, tmp_path)
    with pytest.raises(ValueError, match=message):
        Samples(prompts=[prompt]).on_fit_start(trainer, task)
    Samples(prompts=[prompt], enabled=False).on_fit_start(trainer, task)
    Samples(prompts=["fine <mask>"]).on_fit_start(trainer, task)
    assert not (tmp_path / "samples.md").exists()
