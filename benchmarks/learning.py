"""Time to learn tinyshakespeare by characters: ours against nanoGPT's recipe for a CPU.

    python benchmarks/learning.py --data data --rounds 3 [--bf16]

`data` holds tinyshakespeare/input.txt. Both train on the first 90% and are asked about every
character of the rest, in windows side by side. The peer is nanoGPT's recipe (4 layers, 128 wide,
block 64, batch 12, 2,000 steps of AdamW) without the evaluations on its way; ours is the whole
command `gpt4o-lit fit --config shakespeare_char` in an empty folder, from start-up to model card.
The two take turns; medians of the seconds and the losses are printed.
"""

import argparse
import csv
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from plain_gpt import PlainGPT
from torch import Tensor

BLOCK, BATCH, STEPS, WARM_UP = 64, 12, 2000, 100
LR, MIN_LR = 1e-3, 1e-4


def characters(path: Path) -> tuple[Tensor, Tensor, int]:
    """Training and validation characters as numbers, and how many kinds there are."""
    text = path.read_text(encoding="utf-8")
    numbers = {char: number for number, char in enumerate(sorted(set(text)))}
    ids = torch.tensor([numbers[char] for char in text])
    cut = int(0.9 * len(ids))
    return ids[:cut], ids[cut:], len(numbers)


def rate(step: int) -> float:
    """Warm-up, then half a cosine down to a tenth."""
    if step < WARM_UP:
        return LR * (step + 1) / (WARM_UP + 1)
    share = (step - WARM_UP) / (STEPS - WARM_UP)
    return MIN_LR + 0.5 * (1.0 + math.cos(math.pi * share)) * (LR - MIN_LR)


def peer(path: Path, seed: int) -> tuple[float, float]:
    """Seconds and validation loss of nanoGPT's recipe."""
    torch.manual_seed(seed)
    train, valid, kinds = characters(path)
    start = time.perf_counter()
    model = PlainGPT(4, 128, 4, kinds, BLOCK)
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    vectors = [weight for weight in model.parameters() if weight.dim() == 1]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.99), fused=True)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        at = torch.randint(len(train) - BLOCK, (BATCH,))[:, None] + torch.arange(BLOCK + 1)
        windows = train[at]
        model(windows[:, :-1], windows[:, 1:]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    seconds = time.perf_counter() - start
    return seconds, valid_loss(model, valid)


@torch.no_grad()
def valid_loss(model: PlainGPT, valid: Tensor) -> float:
    """Nats per character over the whole of it, in windows side by side."""
    total = 0.0
    for start in range(0, len(valid) - 1, BLOCK):
        window = valid[start : start + BLOCK + 1][None]
        total += float(model(window[:, :-1], window[:, 1:])) * (window.shape[1] - 1)
    return total / (len(valid) - 1)


def ours(data: Path, seed: int, bf16: bool) -> tuple[float, float]:
    """Seconds and validation loss of the whole command in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(data.resolve(), Path(folder) / "data")
        command = [sys.executable, "-m", "gpt4o_lit", "fit", "--config", "shakespeare_char"]
        command += ["--run_dir", "run", "--seed_everything", str(seed)]
        command += ["--config", "with/bf16"] if bf16 else []
        start = time.perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(done.stderr)
        with (Path(folder) / "run" / "metrics.csv").open(encoding="utf-8") as lines:
            losses = [row["val/loss"] for row in csv.DictReader(lines) if row["val/loss"]]
    return seconds, float(losses[-1])


def main() -> None:
    """Run both in turn and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bf16", action="store_true", help="ours in bfloat16, where units are")
    args = parser.parse_args()
    text = args.data / "tinyshakespeare" / "input.txt"
    if not text.is_file():
        raise SystemExit(f"{text} does not exist; pass the folder of tinyshakespeare as --data")
    results: dict[str, list[tuple[float, float]]] = {"ours": [], "nanoGPT's recipe": []}
    for seed in range(args.rounds):
        results["ours"].append(ours(args.data, seed, args.bf16))
        results["nanoGPT's recipe"].append(peer(text, seed))
        for name, runs in results.items():
            seconds, loss = runs[-1]
            print(f"{seed} {name:<18} {seconds:6.1f} s   loss {loss:.4f}", flush=True)
    medians = {
        name: [statistics.median(values) for values in zip(*runs, strict=True)]
        for name, runs in results.items()
    }
    for name, (seconds, loss) in medians.items():
        print(f"{name:<20} {seconds:6.1f} s   validation loss {loss:.4f}")
    first, second = (seconds for seconds, _ in medians.values())
    print(f"ours takes {first / second:.2f} of the peer's time")


if __name__ == "__main__":
    main()
