"""The speed that is told is that of training alone, and its FLOPs are those that are done."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset

from gpt4o_lit.callbacks import Throughput, throughput
from gpt4o_lit.callbacks.throughput import product_dtype
from gpt4o_lit.model import (
    AttentionConfig,
    StackConfig,
    Transformer,
    TransformerConfig,
    flops_per_token,
)
from gpt4o_lit.objectives import CausalLM, MaskedLM, Objective, SpanCorruption
from gpt4o_lit.tasks import Pretraining

SEQ_LEN, BATCH = 8, 4
STACK = StackConfig(num_layers=1, dim=8, attention=AttentionConfig(num_heads=2))


class Clock:
    """Stands still but for those who say that something took time."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class SlowRows(Dataset[Any]):
    """A row takes a sixteenth of a second, so that a batch takes a quarter."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def __len__(self) -> int:
        return 12 * BATCH

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        self.clock.now += self.seconds
        return {"tokens": torch.zeros(SEQ_LEN + 1, dtype=torch.long)}


class Windows(LightningDataModule):
    def __init__(self, clock: Clock, seconds: float = 0.0) -> None:
        super().__init__()
        self.rows = SlowRows(clock, seconds)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.rows, batch_size=BATCH)

    val_dataloader = train_dataloader


class SecondABatch(LightningModule):
    """A batch takes a second of training, and an hour of validation."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.weight = clock, torch.nn.Parameter(torch.ones(()))
        self.told: list[tuple[int, float]] = []
        self.waits: list[float] = []
        self.taken: list[dict[str, float]] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.clock.now += 1
        return self.weight.square()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.clock.now += 3600

    def work(self, batch: Any) -> tuple[int, float]:
        return BATCH * SEQ_LEN, 1.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        if name == "perf/tokens_per_second":
            self.told.append((self.trainer.global_step, value))
        if name == "perf/data_wait":
            self.waits.append(value)

    def log_dict(self, dictionary: Any, *args: Any, **kwargs: Any) -> None:
        self.taken.append({name.removeprefix("perf/"): value for name, value in dictionary.items()})


class WritesLong(Callback):
    """Comes behind Throughput, as samples, checkpoints and plots do."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.clock.now += 100


@pytest.mark.parametrize("accumulate", [1, 2])
def test_each_logged_step_tells_once_how_fast_training_alone_was(
    accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    monkeypatch.setattr(throughput, "peak_flops", lambda device, dtype: 1.0)
    module = SecondABatch(clock)
    train(module, Windows(clock), accumulate)
    steps = range(2, 12 // accumulate + 1, 2)
    assert module.told == [(step, BATCH * SEQ_LEN) for step in steps]
    assert set(module.waits) == {0}


def test_the_wait_is_the_share_of_time_that_training_batches_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    monkeypatch.setattr(throughput, "peak_flops", lambda device, dtype: 1.0)
    module = SecondABatch(clock)
    train(module, Windows(clock, 1 / 16), 1)
    # The clock stands while a batch is got behind a validation: after the third, sixth and ninth.
    with_one_got = 0.25 / 2.25
    shares = [0.2, with_one_got, 0.2, with_one_got, with_one_got, 0.2]
    assert module.waits == pytest.approx(shares)


def test_what_training_has_taken_adds_up_and_a_run_that_goes_on_counts_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    monkeypatch.setattr(throughput, "peak_flops", lambda device, dtype: 1.0)
    first, second = Throughput(), Throughput()
    assert first.state_dict() == {"tokens": 0, "flops": 0, "seconds": 0}
    modules = [SecondABatch(clock) for _ in range(2)]
    train(modules[0], Windows(clock), 1, first)
    second.load_state_dict(first.state_dict())
    train(modules[1], Windows(clock), 1, second)
    steps = range(2, 25, 2)
    # A batch takes a second; validations, and what is written behind them, take none of training's.
    assert modules[0].taken + modules[1].taken == [
        {"tokens": step * BATCH * SEQ_LEN, "flops": step, "seconds": step} for step in steps
    ]


def train(
    module: SecondABatch,
    data: LightningDataModule,
    accumulate: int,
    speed: Throughput | None = None,
) -> None:
    Trainer(
        accelerator="cpu",
        max_epochs=1,
        accumulate_grad_batches=accumulate,
        log_every_n_steps=2,
        val_check_interval=3,
        callbacks=[speed or Throughput(), WritesLong(module.clock)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, datamodule=data)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("32-true", torch.float32),
        ("16-mixed", torch.float16),
        ("16-true", torch.float16),
        ("bf16-mixed", torch.bfloat16),
        ("64-true", torch.float64),
    ],
)
def test_the_peak_is_that_of_the_precision(precision: str, dtype: torch.dtype) -> None:
    assert product_dtype(precision) == dtype


@pytest.mark.parametrize("objective", [CausalLM(), MaskedLM(), SpanCorruption()], ids=repr)
def test_a_window_costs_what_its_objective_has_it_read(objective: Objective) -> None:
    stacks = dict.fromkeys(objective.needs.split("_"), STACK)
    config = TransformerConfig(**stacks, vocab_size=50_000, max_seq_len=512)
    task = Pretraining(config, objective)
    task.transformer = Transformer(config)
    tokens, flops = task.work({"tokens": torch.zeros(3, 513, dtype=torch.long)})
    assert tokens == 3 * 512
    share = flops / (tokens * flops_per_token(config, 512))
    # The head is nearly all that this network costs.
    expected = {MaskedLM: (0.15, 0.3), SpanCorruption: (0.15, 0.3)}.get(type(objective), (1, 1))
    assert expected[0] <= share <= expected[1]


@pytest.mark.parametrize(("readers", "expected"), [(4, 40.0), (2, 20.0)])
def test_what_processes_that_share_a_network_read_counts_once(
    readers: int, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, logged = Clock(), dict[str, float]()
    monkeypatch.setattr(throughput, "time", clock)
    strategy = SimpleNamespace(distributed_sampler_kwargs={"rank": 0, "num_replicas": readers})
    trainer: Any = SimpleNamespace(
        strategy=strategy, global_rank=0, world_size=4, precision="32", profiler=None,
        global_step=0, log_every_n_steps=1, max_steps=2,
    )  # fmt: skip
    task: Any = SimpleNamespace(
        device=torch.device("cpu"),
        work=lambda batch: (10, 1.0),
        log=lambda name, value, **_: logged.update({name: value}),
        log_dict=logged.update,
        all_gather=lambda own: torch.stack([own] * 4),
    )
    callback = Throughput()
    callback.on_train_start(trainer, task)
    clock.now, trainer.global_step = 1.0, 1
    callback.on_train_batch_end(trainer, task, None, None, 0)
    assert logged["perf/tokens_per_second"] == pytest.approx(expected)
