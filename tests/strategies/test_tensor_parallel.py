"""What is refused by name before processes meet, and which of them read the same."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.utilities import rank_zero_only

from gpt4o_lit.callbacks import Distillation, LoRA, MagnitudePruning, QuantizationAwareTraining
from gpt4o_lit.model import AttentionConfig, StackConfig, TransformerConfig
from gpt4o_lit.optim import AdamW, Muon, OptimizerRecipe
from gpt4o_lit.strategies import TensorParallel, data_place
from gpt4o_lit.tasks import PreferenceTuning, Pretraining
from gpt4o_lit.tokenizer import Bytes, TrainSentencePiece

STACK = StackConfig(num_layers=1, dim=16, attention=AttentionConfig(num_heads=4))


@pytest.fixture(autouse=True)
def _rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment tells its rank to all of the process, where other tests come next."""
    monkeypatch.setattr(rank_zero_only, "rank", 0, raising=False)


def strategy_of(
    processes: int = 2,
    size: int | None = None,
    callbacks: tuple[Any, ...] = (),
    optimizer: OptimizerRecipe | None = None,
    compile: bool = False,
    precision: str = "32-true",
    vocab_size: int | None = 368,
    tokenizer: Any = None,
    rank: int = 0,
) -> TensorParallel:
    """A strategy whose processes have not met yet."""
    strategy = TensorParallel(size)
    strategy.parallel_devices = [torch.device("cpu")] * processes
    strategy.cluster_environment = LightningEnvironment()
    strategy.cluster_environment.set_world_size(processes)
    strategy.cluster_environment.set_global_rank(rank)
    config = TransformerConfig(decoder=STACK, vocab_size=vocab_size)
    task: Any = Pretraining(config, optimizer=optimizer or AdamW(), compile=compile)
    data = SimpleNamespace(tokenizer_recipe=tokenizer or Bytes())
    task._trainer = SimpleNamespace(
        callbacks=list(callbacks),
        datamodule=data,
        precision=precision,
        state=SimpleNamespace(fn="fit"),
    )
    strategy._lightning_module = task
    return strategy


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"callbacks": (MagnitudePruning(),)}, "MagnitudePruning needs weights that are whole"),
        ({"callbacks": (QuantizationAwareTraining(),)}, "QuantizationAwareTraining changes what a"),
        (
            {"callbacks": (QuantizationAwareTraining(learned_scales=True),)},
            "QuantizationAwareTraining needs weights that are whole",
        ),
        (
            {"callbacks": (LoRA(),)},
            "LoRA changes what a whole layer computes, and TensorParallel has parts of layers; "
            "take --config with/fsdp2, or leave LoRA out",
        ),
        ({"callbacks": (Distillation(),)}, "Distillation needs the logits of all pieces"),
        ({"callbacks": (EMAWeightAveraging(),)}, "EMAWeightAveraging copies a network"),
        ({"optimizer": Muon()}, "Muon needs weights that are whole"),
        (
            {"compile": True},
            r"compile \(true\) gives wrong .* set model.init_args.compile",
        ),
        (
            {"precision": "16-mixed"},
            r"trainer.precision \(16-mixed\) skips steps .* set it to bf16-mixed",
        ),
        ({"processes": 3, "size": 2}, r"size \(2\) must divide the number of processes \(3\)"),
        ({"processes": 8}, r"num_heads \(4\) must be a multiple of the 8 processes"),
        ({"vocab_size": None}, r"vocab_size \(367\) must be a multiple of the 2 .* set it to 368"),
        (
            {"vocab_size": None, "tokenizer": TrainSentencePiece(vocab_size=501)},
            r"vocab_size \(501\) must be a multiple of the 2 processes",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused_before_processes_meet(
    settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        strategy_of(**settings).setup_environment()
    assert not torch.distributed.is_initialized()


def test_preferences_need_the_logits_of_all_pieces() -> None:
    assert PreferenceTuning.needs_whole_vocabulary


def test_a_size_is_a_number_of_processes() -> None:
    with pytest.raises(ValueError, match=r"size \(0\) must be at least 1; leave it out"):
        TensorParallel(0)


@pytest.mark.parametrize(
    ("size", "places"),
    [(None, [(0, 1)] * 4), (2, [(0, 2), (0, 2), (1, 2), (1, 2)]), (1, [(n, 4) for n in range(4)])],
)
def test_those_that_share_a_network_read_the_same(
    size: int | None, places: list[tuple[int, int]]
) -> None:
    for rank, expected in enumerate(places):
        strategy = strategy_of(4, size, rank=rank)
        strategy._tensor_parallel_size = strategy.group_size
        assert data_place(SimpleNamespace(strategy=strategy)) == expected


def test_without_such_a_strategy_each_process_reads_its_own() -> None:
    trainer = SimpleNamespace(strategy=None, global_rank=1, world_size=3)
    assert data_place(trainer) == (1, 3)
