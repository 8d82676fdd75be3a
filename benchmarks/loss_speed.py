"""Chunked linear cross-entropy against F.cross_entropy(F.linear(...)), in alternation.

    python benchmarks/loss_speed.py --positions 1024 --dim 384 --rounds 5

Prints the median seconds of forward and backward of each, and how many times faster ours is.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt4o_lit.objectives import linear_cross_entropy

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain(features_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """What everyone writes first; all logits at once."""
    logits_NV = F.linear(features_ND, weight_VD).float()
    return F.cross_entropy(logits_NV, targets_N, reduction="sum")


def seconds(
    loss: Loss, features_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, bf16: bool
) -> float:
    """Time of one forward and backward; the backward starts from 1/N, as in training."""
    features_ND.grad = weight_VD.grad = None
    start = time.perf_counter()
    with torch.autocast(features_ND.device.type, dtype=torch.bfloat16, enabled=bf16):
        total = loss(features_ND, weight_VD, targets_N)
    (total / targets_N.shape[0]).backward()
    if features_ND.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--positions", type=int, default=1024)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--vocab_size", type=int, default=50257)
    parser.add_argument("--asked", type=float, default=1.0, help="share of positions with a target")
    parser.add_argument("--chunk_size", type=int, nargs="*", default=[0], help="0: by itself")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="under bfloat16 autocast")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    features_ND = torch.randn(args.positions, args.dim, device=args.device, requires_grad=True)
    weight_VD = (0.02 * torch.randn(args.vocab_size, args.dim, device=args.device)).requires_grad_()
    targets_N = torch.randint(args.vocab_size, (args.positions,), device=args.device)
    targets_N[torch.rand(args.positions, device=args.device) >= args.asked] = -100

    def chunked(size: int) -> Loss:
        return lambda f, w, t: linear_cross_entropy(f, w, t, chunk_size=size or None)

    losses: dict[str, Loss] = {"plain": plain}
    losses |= {f"chunked ({size or 'auto'})": chunked(size) for size in args.chunk_size}
    times: dict[str, list[float]] = {name: [] for name in losses}
    for turn in range(args.rounds + 1):
        for name, loss in losses.items():
            taken = seconds(loss, features_ND, weight_VD, targets_N, args.bf16)
            if turn > 0:
                times[name].append(taken)
    reference = statistics.median(times["plain"])
    print(
        f"N={args.positions} D={args.dim} V={args.vocab_size} asked={args.asked} bf16={args.bf16}"
    )
    for name, taken_times in times.items():
        median = statistics.median(taken_times)
        print(f"  {name:16} {median:7.3f} s   {reference / median:5.2f}x")


if __name__ == "__main__":
    main()
