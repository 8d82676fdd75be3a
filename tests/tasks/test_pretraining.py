"""What a task of pretraining saves beside the weights."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor

from gpt4o_lit.model import AttentionConfig, StackConfig, TransformerConfig
from gpt4o_lit.objectives import CausalLM, Objective, PrefixLM
from gpt4o_lit.tasks import Pretraining
from gpt4o_lit.tokenizer import ByteTokenizer


@pytest.mark.parametrize(("objective", "both_ways"), [(CausalLM(), False), (PrefixLM(), True)])
def test_a_checkpoint_tells_how_a_prompt_is_read(objective: Objective, both_ways: bool) -> None:
    stack = StackConfig(num_layers=1, dim=16, attention=AttentionConfig(num_heads=2))
    task = Pretraining(TransformerConfig(decoder=stack, max_seq_len=8), objective)
    datamodule: Any = SimpleNamespace(tokenizer=ByteTokenizer())
    strategy: Any = SingleDeviceStrategy()
    place = {"global_rank": 0, "world_size": 1}
    task._trainer = SimpleNamespace(datamodule=datamodule, strategy=strategy, **place)  # type: ignore[assignment]
    task.configure_model()
    checkpoint: dict[str, Any] = {}
    task.on_save_checkpoint(checkpoint)
    assert checkpoint["bidirectional_prompt"] is both_ways
    assert checkpoint["fills_gaps"] is False
    assert checkpoint["transformer_config"]["decoder"]["dim"] == 16


def draws_of(task: Pretraining, batch_idx: int, rows: int, **place: int) -> Tensor:
    """What a process draws for the windows of a training batch."""
    usual = {"current_epoch": 0, "global_rank": 0, "world_size": 1, "batch_size": 1}
    usual["strategy"] = None  # type: ignore[assignment]
    settings: Any = SimpleNamespace(**usual | place)
    settings.datamodule = settings
    task._trainer, task._seed = settings, torch.initial_seed()
    return task._draws(torch.zeros(rows, 4), batch_idx, training=True).rand(3)


def test_every_window_draws_by_itself() -> None:
    stack = StackConfig(num_layers=1, dim=16, attention=AttentionConfig(num_heads=2))
    task = Pretraining(TransformerConfig(decoder=stack, max_seq_len=8))
    drawn = []
    for seed, epoch in itertools.product((0, 8, 2048, 2**32), (0, 1)):
        torch.manual_seed(seed)
        drawn += [draws_of(task, i, 2, batch_size=2, current_epoch=epoch) for i in range(9)]
    numbers = torch.cat(drawn)
    assert numbers.shape == (4 * 2 * 9 * 2, 3)
    assert len(numbers.unique()) == numbers.numel()


def test_windows_draw_the_same_on_any_number_of_processes() -> None:
    stack = StackConfig(num_layers=1, dim=16, attention=AttentionConfig(num_heads=2))
    task = Pretraining(TransformerConfig(decoder=stack, max_seq_len=8))
    alone = torch.cat([draws_of(task, i, 4, batch_size=4) for i in range(3)])
    place = {"world_size": 2, "batch_size": 2}
    both = [draws_of(task, i, 2, global_rank=rank, **place) for i in range(3) for rank in range(2)]
    accumulated = [draws_of(task, i, 1) for i in range(12)]
    assert torch.equal(alone, torch.cat(both))
    assert torch.equal(alone, torch.cat(accumulated))


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_filling_in_the_middle_is_trained_and_not_judged_by(rate: float) -> None:
    stack = StackConfig(num_layers=1, dim=16, attention=AttentionConfig(num_heads=2))
    task = Pretraining(TransformerConfig(decoder=stack, max_seq_len=32), CausalLM(fim_rate=rate))
    datamodule: Any = SimpleNamespace(
        tokenizer=ByteTokenizer(), seq_len=16, batch_size=1, eval_batch_size=1
    )
    trainer: Any = SimpleNamespace(
        datamodule=datamodule,
        current_epoch=0,
        global_rank=0,
        world_size=1,
        strategy=SingleDeviceStrategy(),
    )
    task._trainer = trainer
    task.setup("fit")
    tokens = torch.arange(65, 82)[None]
    batch = {"tokens": tokens, "documents": torch.zeros_like(tokens)}
    trained, judged = (task.example(batch, 0, training=each) for each in (True, False))
    assert torch.equal(judged.tokens, tokens[:, :-1])
    assert torch.equal(trained.tokens, judged.tokens) == (rate == 0)
