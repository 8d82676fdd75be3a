"""How long training stands still for a checkpoint of 100M parameters with AdamW's state.

OMP_NUM_THREADS=2 python benchmarks/checkpoint_speed.py
"""

import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from gpt4o_lit.callbacks.checkpoint_files import CheckpointFiles, Keeping
from gpt4o_lit.interop.checkpoints import load_checkpoint, step_file
from gpt4o_lit.strategies.allocator import keep_freed_memory

PARAMETERS, PARTS, ROUNDS = 100_000_000, 100, 5


def main() -> None:
    """Save in turns, and tell the medians."""
    keep_freed_memory()
    part = PARAMETERS // PARTS
    state = {str(i): {k: torch.randn(part) for k in ("weight", "mean", "square")}
             for i in range(PARTS)}  # fmt: skip
    stalls: dict[bool, list[float]] = {False: [], True: []}
    saves: list[float] = []
    files = CheckpointFiles()
    files.make_room(state)  # as behind the first step of a run
    with tempfile.TemporaryDirectory(dir=".") as name:
        for step in range(1, 2 * ROUNDS + 1):
            file = step_file(Path(name), step)
            files.asynchronous = step % 2 == 0
            begin = time.perf_counter()
            keeping = Keeping(step=step, last=1, best=[], config=Path("none"))
            files.save_checkpoint(state, file, keeping)
            stalls[files.asynchronous].append(time.perf_counter() - begin)
            assert files.wait() is None
            saves.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        load_checkpoint(file, mmap=False)
        print(f"load {time.perf_counter() - begin:.2f} s")
    at_once, behind, save = median(stalls[False]), median(stalls[True]), median(saves[1::2])
    print(f"stall at once {at_once:.2f} s; asynchronous {behind:.3f} s of a save of {save:.2f} s")
    print(f"share {behind / save:.1%}; all {[round(stall, 3) for stall in stalls[True]]}")


if __name__ == "__main__":
    main()
