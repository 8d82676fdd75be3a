"""What a task of pretraining saves beside the weights."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gpt4o_lit.model import AttentionConfig, StackConfig, TransformerConfig
from gpt4o_lit.objectives import CausalLM, Objective, PrefixLM
from gpt4o_lit.tasks import Pretraining
from gpt4o_lit.tokenizer import ByteTokenizer


@pytest.mark.parametrize(("objective", "both_ways"), [(CausalLM(), False), (PrefixLM(), True)])
def test_a_checkpoint_tells_how_a_prompt_is_read(objective: Objective, both_ways: bool) -> None:
    stack = StackConfig(num_layers=1, dim=16, attention=AttentionConfig(num_heads=2))
    task = Pretraining(TransformerConfig(decoder=stack, max_seq_len=8), objective)
    datamodule: Any = SimpleNamespace(tokenizer=ByteTokenizer())
    task._trainer = SimpleNamespace(datamodule=datamodule)  # type: ignore[assignment]
    task.configure_model()
    checkpoint: dict[str, Any] = {}
    task.on_save_checkpoint(checkpoint)
    assert checkpoint["bidirectional_prompt"] is both_ways
    assert checkpoint["fills_gaps"] is False
    assert checkpoint["transformer_config"]["decoder"]["dim"] == 16


def test_every_batch_draws_by_itself() -> None:
    stack = StackConfig(num_layers=1, dim=16, attention=AttentionConfig(num_heads=2))
    task = Pretraining(TransformerConfig(decoder=stack, max_seq_len=8))
    draws = []
    for seed, epoch, rank in itertools.product((0, 8, 2048, 2**32), (0, 1), (0, 1)):
        torch.manual_seed(seed)
        task._trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank)  # type: ignore[assignment]
        draws += [
            float(torch.rand((), generator=task._generator(i, training=True))) for i in range(9)
        ]
    assert len(set(draws)) == len(draws) == 4 * 2 * 2 * 9


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_filling_in_the_middle_is_trained_and_not_judged_by(rate: float) -> None:
    stack = StackConfig(num_layers=1, dim=16, attention=AttentionConfig(num_heads=2))
    task = Pretraining(TransformerConfig(decoder=stack, max_seq_len=32), CausalLM(fim_rate=rate))
    datamodule: Any = SimpleNamespace(tokenizer=ByteTokenizer(), seq_len=16)
    task._trainer = SimpleNamespace(datamodule=datamodule, current_epoch=0, global_rank=0)  # type: ignore[assignment]
    task.setup("fit")
    tokens = torch.arange(65, 82)[None]
    batch = {"tokens": tokens, "documents": torch.zeros_like(tokens)}
    trained, judged = (task.example(batch, 0, training=each) for each in (True, False))
    assert torch.equal(judged.tokens, tokens[:, :-1])
    assert torch.equal(trained.tokens, judged.tokens) == (rate == 0)
