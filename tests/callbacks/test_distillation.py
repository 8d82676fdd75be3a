"""A teacher is asked when it is time, about what the student reads, and leaves nothing behind."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import Callback, LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from gpt4o_lit.callbacks import Distillation, StructuredPruning
from gpt4o_lit.callbacks.distillation import fingerprint
from gpt4o_lit.compression import Cut
from gpt4o_lit.interop.run import open_run
from gpt4o_lit.model import AttentionConfig, StackConfig, Transformer, TransformerConfig
from gpt4o_lit.objectives import CausalLM, Example, MaskedLM, Objective, PrefixLM, SpanCorruption
from gpt4o_lit.optim import AdamW, Constant
from gpt4o_lit.tasks import Pretraining
from gpt4o_lit.tokenizer import ByteTokenizer

SEQ_LEN, NUM_STEPS, NUM_WINDOWS = 16, 4, 16
STACK = StackConfig(num_layers=1, dim=16, dropout=0.1, attention=AttentionConfig(num_heads=2))
LARGE = StackConfig(num_layers=2, dim=24, dropout=0.1, attention=AttentionConfig(num_heads=3))


class Windows(LightningDataModule):
    """The same few windows of two documents each, in batches of this size."""

    tokenizer = ByteTokenizer()
    seq_len = longest_row = SEQ_LEN

    def __init__(self, batch_size: int = 4) -> None:
        super().__init__()
        self.batch_size = self.eval_batch_size = batch_size
        self.tokens_per_batch = batch_size * SEQ_LEN
        self.batches_per_epoch = NUM_WINDOWS // batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(1)
        rows = torch.randint(97, 122, (NUM_WINDOWS, SEQ_LEN + 1), generator=generator)
        documents = torch.arange(SEQ_LEN + 1) // 10
        windows: Any = [{"tokens": row, "documents": documents} for row in rows]
        return DataLoader(windows, batch_size=self.batch_size)


def network(stack: StackConfig, *sides: str, **others: Any) -> TransformerConfig:
    """Of these stacks; a decoder where none is named."""
    stacks: Any = dict.fromkeys(sides or ("decoder",), stack)
    return TransformerConfig(**stacks, max_seq_len=SEQ_LEN, **others)


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """The directory that a run of a larger decoder left."""
    return write_run(tmp_path / "parent", network(LARGE))


def write_run(path: Path, config: TransformerConfig) -> Path:
    if config.vocab_size is None:
        config = replace(config, vocab_size=ByteTokenizer.vocab_size)
    state = {f"transformer.{n}": w for n, w in Transformer(config).state_dict().items()}
    saved = {"state_dict": state, "transformer_config": config.to_dict()}
    saved["tokenizer_fingerprint"] = ByteTokenizer.fingerprint
    (path / "checkpoints").mkdir(parents=True)
    torch.save(saved, path / "checkpoints" / "best.ckpt")
    (path / "config.yaml").write_text("name: parent\n")
    ByteTokenizer().save(path / "tokenizer")
    return path


def task_of(config: TransformerConfig | None = None, **settings: Any) -> Pretraining:
    if "pretrained" not in settings:
        settings["transformer"] = config or network(STACK)
    return Pretraining(optimizer=AdamW(lr=0.01), schedule=Constant(), **settings)


def fit(
    task: Pretraining,
    *callbacks: Callback,
    data: Windows | None = None,
    ckpt_path: Path | None = None,
    **settings: Any,
) -> Trainer:
    torch.manual_seed(0)
    settings = {"max_steps": NUM_STEPS, "log_every_n_steps": 1} | settings
    trainer = Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(task, datamodule=data or Windows(), ckpt_path=ckpt_path, weights_only=True)
    return trainer


def assert_equal(one: Pretraining, other: Pretraining, atol: float) -> None:
    for name, weight in one.transformer.state_dict().items():
        torch.testing.assert_close(
            weight, other.transformer.state_dict()[name], atol=atol, rtol=0, msg=name
        )


def test_a_callback_that_is_off_opens_nothing_and_changes_nothing() -> None:
    plain, off = task_of(), task_of()
    fit(plain)
    fit(off, Distillation(teacher="nowhere", enabled=False))
    assert_equal(plain, off, atol=0)


def test_a_teacher_draws_nothing_at_random(parent: Path) -> None:
    """Without a share of the loss the run is that without a teacher, its dropout too."""
    plain, taught = task_of(), task_of()
    fit(plain)
    fit(taught, Distillation(teacher=str(parent), share=0.0))
    assert_equal(plain, taught, atol=0)


def logits_of(one: Transformer, example: Example) -> Tensor:
    return one(
        example.tokens,
        source_BS=example.source,
        documents_BT=example.documents,
        source_documents_BS=example.source_documents,
        prefix_BT=example.prefix,
    )


class Asked(Callback):
    """Remembers what the network was asked last; each batch is prepared alike again."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        with trainer.precision_plugin.train_step_context():  # it sets the dtype of what is drawn
            self.example: Example = pl_module.example(batch, batch_idx, training=True)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
@pytest.mark.parametrize(
    ("objective", "sides"),
    [
        (CausalLM(), ["decoder"]),
        (CausalLM(fim_rate=1.0), ["decoder"]),
        (PrefixLM(), ["decoder"]),
        (MaskedLM(rate=0.5), ["encoder"]),
        (SpanCorruption(rate=0.3), ["encoder", "decoder"]),
    ],
)
def test_teacher_and_student_are_asked_the_same(
    objective: Objective, sides: list[str], precision: Any, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", network(LARGE, *sides, init_std=0.3))
    still = network(replace(STACK, dropout=0.0), *sides, init_std=0.3)
    task, asked = task_of(still, objective=objective), Asked()
    task.optimizer_recipe = AdamW(lr=1e-12)
    distill = Distillation(teacher=str(run), temperature=2.0)
    trainer = fit(task, distill, asked, max_steps=1, precision=precision)
    with torch.no_grad():
        said = F.log_softmax(logits_of(task.transformer.float(), asked.example) / 2, dim=-1)
        ought = F.log_softmax(logits_of(open_run(run).transformer, asked.example) / 2, dim=-1)
    apart = (ought.exp() * (ought - said)).sum(-1)[asked.example.targets != -100]
    logged = trainer.callback_metrics["distillation/loss"].item()
    close = 0.05 if precision == "bf16-mixed" else 1e-5
    assert logged == pytest.approx(4 * apart.mean().item(), rel=close)


def test_micro_batches_are_taught_as_one_batch_is(parent: Path) -> None:
    still = network(replace(STACK, dropout=0.0))
    whole, parts = task_of(still), task_of(still)
    logged = [
        fit(task, Distillation(teacher=str(parent)), data=Windows(size), accumulate_grad_batches=n)
        for task, size, n in ((whole, 4, 1), (parts, 1, 4))
    ]
    assert_equal(whole, parts, atol=1e-5)
    losses = [trainer.callback_metrics["distillation/loss"].item() for trainer in logged]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_what_is_cut_learns_from_what_is_whole(tmp_path: Path) -> None:
    run = write_run(tmp_path / "parent", network(STACK))
    task = task_of(pretrained=str(run))
    distill = Distillation(hidden=0.5)
    cut = StructuredPruning(Cut(heads=0.5, channels=0.5, multiple_of=8), at=2, num_batches=1)
    trainer = fit(task, cut, distill)
    assert task.transformer.decoder is not None
    assert task.transformer.decoder.config.attention.num_heads == 1
    assert trainer.callback_metrics["distillation/loss"] > 0
    assert trainer.callback_metrics["distillation/hidden"] > 0
    teacher: Transformer = distill._teacher.network
    assert fingerprint(teacher) == fingerprint(open_run(run).transformer)
    assert not teacher.training
    assert all(weight.grad is None for weight in teacher.parameters())


def test_nothing_of_the_teacher_is_trained_or_saved(parent: Path) -> None:
    task = task_of()
    trainer = fit(task, Distillation(teacher=str(parent)))
    assert task.teacher is None
    own = set(task.transformer.parameters())
    assert set(task.parameters()) == own
    assert {w for g in trainer.optimizers[0].param_groups for w in g["params"]} == own
    assert all(name.startswith("transformer.") for name in task.state_dict())


class SavesFirstEpoch(Callback):
    """Leaves a checkpoint from which a run goes on in its second epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


def test_a_run_that_goes_on_learns_as_if_it_never_stopped(tmp_path: Path) -> None:
    """All windows are one batch here, for the loader of this file forgets its place."""
    run, saved = write_run(tmp_path / "parent", network(STACK)), tmp_path / "saved.ckpt"
    tasks = []
    for ckpt_path in (None, saved):
        tasks.append(task_of(pretrained=str(run), dropout=0.0))
        cut = StructuredPruning(Cut(heads=0.5, multiple_of=8), at=0, num_batches=1)
        callbacks = (cut, Distillation(hidden=0.5), SavesFirstEpoch(saved))
        trainer = fit(tasks[-1], *callbacks, data=Windows(NUM_WINDOWS), ckpt_path=ckpt_path)
        assert trainer.global_step == NUM_STEPS
    assert_equal(*tasks, atol=0)


class Remembers(Callback):
    """At which steps somebody teaches."""

    def __init__(self) -> None:
        self.taught: list[bool] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        self.taught.append(pl_module.teacher is not None)


@pytest.mark.parametrize(
    ("window", "taught"),
    [
        ({}, [True, True, True, True]),
        ({"begin": 0.5}, [False, False, True, True]),
        ({"begin": 1, "end": 0.75}, [False, True, True, False]),
        ({"end": 2}, [True, True, False, False]),
    ],
)
def test_it_teaches_from_begin_to_end(
    window: dict[str, float], taught: list[bool], parent: Path
) -> None:
    remembers = Remembers()
    fit(task_of(), Distillation(teacher=str(parent), **window), remembers)
    assert remembers.taught == taught


WIDE = StructuredPruning(Cut(width=0.5), num_batches=1)


@pytest.mark.parametrize(
    ("teacher", "settings", "message"),
    [
        (network(LARGE, vocab_size=500), {}, r"vocab_size of the teacher \(500\) must be that"),
        (network(LARGE, "encoder"), {}, "teacher has encoder, but must have .* decoder; give"),
        (
            replace(network(LARGE), num_classes=3),
            {},
            "head is of 3 classes, but must be of pieces, as the student's; give",
        ),
        (
            replace(network(LARGE), max_seq_len=8),
            {},
            r"up to 16 pieces\) must be no longer .* \(8\)",
        ),
        (network(LARGE), {"hidden": 1.0}, r"dim of the teacher \(24\) .* \(16\); set hidden to 0"),
        (network(LARGE), {"begin": 3, "end": 2}, r"begin \(3: step 3\) must come before end"),
        (network(LARGE), {"begin": 9, "end": 12}, r"the run's end \(step 4\); lower begin"),
        (network(LARGE), {"begin": -1}, r"begin \(-1\) must not be negative; set it to 0"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(
    teacher: TransformerConfig, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", teacher)
    with pytest.raises(ValueError, match=message):
        fit(task_of(), Distillation(teacher=str(run), **settings))


def test_hidden_states_are_not_compared_where_width_is_cut(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", network(STACK))
    with pytest.raises(ValueError, match=r"StructuredPruning cuts width \(0.5\); set hidden to 0"):
        fit(task_of(), Distillation(teacher=str(run), hidden=1.0), WIDE)


def test_a_run_from_random_weights_has_no_parent() -> None:
    with pytest.raises(ValueError, match=r"teacher \(null\) must be the directory of a run"):
        fit(task_of(), Distillation())


def test_a_teacher_of_other_pieces_is_refused(parent: Path) -> None:
    data = Windows()
    data.tokenizer = ByteTokenizer()
    data.tokenizer.fingerprint = "bytes-2"
    with pytest.raises(ValueError, match=r"was trained on other pieces .*LoadTokenizer"):
        fit(task_of(), Distillation(teacher=str(parent)), data=data)


def test_a_run_that_goes_on_refuses_a_teacher_that_has_learned_since(parent: Path) -> None:
    distill = Distillation(teacher=str(parent))
    fit(task_of(), distill, max_steps=1)
    again = Distillation(teacher=str(parent))
    again.load_state_dict(distill.state_dict())
    fit(task_of(), again, max_steps=1)
    (parent / "checkpoints" / "best.ckpt").unlink()
    other = write_run(parent.parent / "other", network(LARGE))
    (other / "checkpoints" / "best.ckpt").rename(parent / "checkpoints" / "best.ckpt")
    with pytest.raises(ValueError, match="has other weights than when this run began"):
        fit(task_of(), again, max_steps=1)


class Deaf(Pretraining):
    """A task with a training step of its own, which asks nobody."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.weighted_loss(*self._loss_sum(self.example(batch, batch_idx, training=True)))


def test_a_task_that_asks_no_teacher_is_told_so(parent: Path) -> None:
    with pytest.raises(ValueError, match=r"Deaf\.training_step asks no teacher"):
        fit(Deaf(network(STACK)), Distillation(teacher=str(parent)))
