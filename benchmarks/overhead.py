"""What Trainer, CLI callbacks and logging cost over a bare PyTorch loop of the same task.

    python benchmarks/overhead.py --steps 60 --rounds 5

Both train the same network on the same batches with the same optimizer, in alternation in one
process: once through `Trainer.fit` with all that a run has (progress bar, metrics, throughput,
random state), once in a plain loop of prepare, forward, backward, clip, step. Prints the median
seconds per step of each and their ratio.
"""

import argparse
import statistics
import tempfile
import time
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer, seed_everything

from gpt4o_lit.callbacks import MetricsLog, Progress, RandomState, Throughput
from gpt4o_lit.corpus import CorpusConfig
from gpt4o_lit.data import PackedDataModule
from gpt4o_lit.model import AttentionConfig, StackConfig, TransformerConfig
from gpt4o_lit.objectives import linear_cross_entropy
from gpt4o_lit.optim import AdamW
from gpt4o_lit.tasks import Pretraining
from gpt4o_lit.tasks.gradients import scale_and_clip_
from gpt4o_lit.tokenizer import Bytes

WARM_UP = 5


class Clock(Callback):
    """The time at the end of each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())


def build(directory: Path, args: argparse.Namespace) -> tuple[Pretraining, PackedDataModule]:
    """A task and its data."""
    stack = StackConfig(
        num_layers=args.num_layers, dim=args.dim, attention=AttentionConfig(num_heads=4)
    )
    data = PackedDataModule(
        CorpusConfig(sources=["python-stdlib"]), Bytes(), str(directory), seq_len=128, batch_size=8
    )
    return Pretraining(TransformerConfig(decoder=stack), optimizer=AdamW(lr=1e-3)), data


def through_trainer(directory: Path, args: argparse.Namespace) -> float:
    """Seconds per step of a whole run, after warm-up."""
    task, data = build(directory, args)
    clock = Clock()
    with tempfile.TemporaryDirectory() as run:
        trainer = Trainer(
            accelerator="cpu", max_steps=args.steps, logger=[MetricsLog(run)], log_every_n_steps=10,
            callbacks=[Progress(), Throughput(), RandomState(), clock], gradient_clip_val=1.0,
            enable_checkpointing=False, enable_model_summary=False, limit_val_batches=0,
            num_sanity_val_steps=0, default_root_dir=run,
        )  # fmt: skip
        trainer.fit(task, datamodule=data)
    return statistics.median(b - a for a, b in pairwise(clock.times[WARM_UP:]))


def bare(directory: Path, args: argparse.Namespace) -> float:
    """Seconds per step of a plain loop over the same batches."""
    task, data = build(directory, args)
    data.prepare_data()
    task.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    task.trainer.datamodule = data
    task.setup("fit")
    task.configure_model()
    network = task.transformer.train()
    optimizer = task.optimizer_recipe.build(network)
    times = []
    for batch in islice(data.train_dataloader(), args.steps):
        generator = torch.Generator().manual_seed(0)
        example = task.objective.prepare(batch["tokens"], batch["documents"], generator)
        hidden = network.hidden(example.tokens, documents_BT=example.documents)
        features, targets = network.head.features(hidden).flatten(0, 1), example.targets.flatten()
        loss = linear_cross_entropy(features, network.head.weight, targets)
        (loss / (targets != -100).sum()).backward()
        scale_and_clip_(network.parameters(), 1.0, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter())
    return statistics.median(b - a for a, b in pairwise(times[WARM_UP:]))


def main() -> None:
    """Measure both in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num_layers", type=int, default=4)
    parser.add_argument("--dim", type=int, default=128)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = [], []
        for _ in range(args.rounds):
            for times, measure in ((ours, through_trainer), (plain, bare)):
                seed_everything(0, verbose=False)
                times.append(measure(Path(folder), args))
    ratio = statistics.median(a / b for a, b in zip(ours, plain, strict=True))
    print(f"Trainer {statistics.median(ours) * 1e3:.1f} ms a step, bare loop "
          f"{statistics.median(plain) * 1e3:.1f} ms; median ratio {ratio:.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
