"""A rank that hangs, dies or fails is named by the others in time."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import pytest
from lightning import Callback

ROOT = Path(__file__).parent.parent.parent
SECONDS = 30


class Misfortune(Callback):
    """Befalls rank 1 in its third step, behind the start of the batch."""

    def __init__(self, kind: Literal["stop", "sleep", "die", "fail"]) -> None:
        self.kind = kind

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_rank != 1 or trainer.global_step != 2:
            return
        Path("when").write_text(str(time.time()))
        if self.kind == "sleep":
            time.sleep(600)
        if self.kind == "fail":
            raise ValueError("a row is empty")
        os.kill(os.getpid(), signal.SIGSTOP if self.kind == "stop" else signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "strategy", "told"),
    [
        ("stop", "ddp", "step 3: rank 1 did not come to a collective"),
        ("sleep", "fsdp2", "step 3: rank 1 did not come to a collective"),
        ("die", "ddp", "was killed by SIGKILL"),
        ("fail", "ddp", "step 3: rank 1: ValueError: a row is empty"),
    ],
)
def test_the_others_end_in_time_and_name_the_rank(
    kind: str, strategy: str, told: str, config: Path
) -> None:
    command = [sys.executable, "-m", "gpt4o_lit", "fit", "--config", str(config)]
    command += ["--config", f"with/{strategy}", "--trainer.devices", "2", "--run_dir", "run"]
    command += [f"--trainer.strategy.init_args.timeout=0:00:{SECONDS}"]
    command += [f"--trainer.callbacks+={Misfortune.__module__}.Misfortune"]
    command += [f"--trainer.callbacks.init_args.kind={kind}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    ended = time.time()
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("gpt4o-lit fit: ")]
    assert lines, done.stderr[-3000:]
    own = ["gpt4o-lit fit: a row is empty"] if kind == "fail" else []  # of the rank itself
    assert lines[:-1] == own
    assert told in lines[-1]
    assert ended - float(Path("when").read_text()) < SECONDS + 20
