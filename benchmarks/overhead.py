"""What command line, Trainer, callbacks and logging cost over a bare PyTorch loop of the same task.

    python benchmarks/overhead.py --steps 150 --rounds 7

Both train the same network on the same batches with the same optimizer, in alternation in one
process: once by `gpt4o-lit fit` with everything that a run has (progress bar, metrics, throughput,
checkpoints, random state, samples, plots), once in a plain loop of prepare, forward, backward,
clip, step. Counted is the median time of ten steps in a row, one of which logs, after the first
ten: a burst of somebody else's work on the machine strikes few of them. Validation and what follows
the last step are no part of a loop and are left out, so is the start, which is printed. Prints the
medians and the median ratio.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from itertools import islice, pairwise
from pathlib import Path

import clock
import torch
import yaml
from lightning import Trainer, seed_everything

from gpt4o_lit.__main__ import main as gpt4o_lit
from gpt4o_lit.corpus import CorpusConfig
from gpt4o_lit.data import PackedDataModule
from gpt4o_lit.model import AttentionConfig, StackConfig, TransformerConfig
from gpt4o_lit.objectives import Draws, linear_cross_entropy
from gpt4o_lit.optim import AdamW
from gpt4o_lit.strategies.allocator import keep_freed_memory
from gpt4o_lit.tasks import Pretraining
from gpt4o_lit.tasks.gradients import scale_and_clip_
from gpt4o_lit.tokenizer import Bytes

PERIOD, SEQ_LEN, BATCH_SIZE = 10, 128, 8


def config(corpus: Path, args: argparse.Namespace) -> str:
    """The experiment as a config."""
    return yaml.safe_dump({
        "name": "overhead",
        "model": {"class_path": "gpt4o_lit.tasks.Pretraining", "init_args": {
            "transformer": {"max_seq_len": SEQ_LEN, "decoder": {
                "num_layers": args.num_layers, "dim": args.dim, "attention": {"num_heads": 4}}},
            "optimizer": {"class_path": "gpt4o_lit.optim.AdamW", "init_args": {"lr": 1e-3}},
        }},
        "data": {"class_path": "gpt4o_lit.data.PackedDataModule", "init_args": {
            "directory": str(corpus), "corpus": {"sources": ["python-stdlib"]},
            "tokenizer": {"class_path": "gpt4o_lit.tokenizer.Bytes"},
            "seq_len": SEQ_LEN, "batch_size": BATCH_SIZE}},
        "trainer": {"accelerator": "cpu", "max_steps": args.steps, "gradient_clip_val": 1.0,
                    "limit_val_batches": 0, "num_sanity_val_steps": 0, "log_every_n_steps": PERIOD,
                    "callbacks": [{"class_path": "clock.Clock"}]},
    })  # fmt: skip


def by_command(folder: Path, args: argparse.Namespace) -> float:
    """Seconds per step of `gpt4o-lit fit`."""
    path = folder / "overhead.yaml"
    path.write_text(config(folder / "corpus", args), encoding="utf-8")
    run = tempfile.mkdtemp(dir=folder)
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        assert gpt4o_lit(["fit", "--config", str(path), "--run_dir", run]) == 0
    print(f"first step ended after {clock.TIMES[0] - start:.1f} s")
    return per_step(clock.TIMES)


def by_hand(folder: Path, args: argparse.Namespace) -> float:
    """Seconds per step of a plain loop over the same batches."""
    seed_everything(0, verbose=False)
    stack = StackConfig(
        num_layers=args.num_layers, dim=args.dim, attention=AttentionConfig(num_heads=4)
    )
    data = PackedDataModule(
        CorpusConfig(sources=["python-stdlib"]),
        Bytes(),
        str(folder / "corpus"),
        seq_len=SEQ_LEN,
        batch_size=BATCH_SIZE,
    )
    task = Pretraining(
        TransformerConfig(decoder=stack, max_seq_len=SEQ_LEN), optimizer=AdamW(lr=1e-3)
    )
    data.prepare_data()
    task.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    task.trainer.datamodule = data
    task.setup("fit")
    task.configure_model()
    network = task.transformer.train()
    optimizer = task.optimizer_recipe.build(network)
    times = []
    for batch in islice(data.train_dataloader(), args.steps):
        draws = Draws((0,), torch.arange(len(batch["tokens"])))
        example = task.objective.prepare(batch["tokens"], batch["documents"], draws)
        hidden = network.hidden(example.tokens, documents_BT=example.documents)
        features, targets = network.head.features(hidden).flatten(0, 1), example.targets.flatten()
        loss = linear_cross_entropy(features, network.head.weight, targets)
        (loss / (targets != -100).sum()).backward()
        scale_and_clip_(network.parameters(), 1.0, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter())
    return per_step(times)


def per_step(times: list[float]) -> float:
    """Median seconds per step over the periods between two logs, without the first."""
    ends = times[PERIOD - 1 :: PERIOD]
    return statistics.median(b - a for a, b in pairwise(ends)) / PERIOD


def main() -> None:
    """Measure both in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--num_layers", type=int, default=4)
    parser.add_argument("--dim", type=int, default=128)
    args = parser.parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = [], []
        for _ in range(args.rounds):
            ours.append(by_command(Path(folder), args))
            plain.append(by_hand(Path(folder), args))
            print(f"round: {ours[-1] * 1e3:.1f} ms, bare loop {plain[-1] * 1e3:.1f} ms", flush=True)
    ratio = statistics.median(a / b for a, b in zip(ours, plain, strict=True))
    print(
        f"gpt4o-lit fit {statistics.median(ours) * 1e3:.1f} ms a step, bare loop "
        f"{statistics.median(plain) * 1e3:.1f} ms; median ratio {ratio:.3f}"
    )


if __name__ == "__main__":
    main()
