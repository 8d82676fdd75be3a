"""Every command of the documentation is run to its end, page by page, on little text."""

import glob
import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from gpt4o_lit.__main__ import main
from gpt4o_lit.cli import RUN_DIR
from tests.documents import PAGES, ROOT, Command, commands_in, files_in, text_of

pytestmark = pytest.mark.slow

WITH_COMMANDS = [page for page in PAGES if commands_in(text_of(page))]
NOT_RUN = {
    r"^make ": "sets up an environment of its own; CI runs these targets themselves",
    r"^pip install ": "downloads; what it installs is in this environment already",
    r"^gpt4o-lit import HuggingFaceTB/": "downloads from the hub",
    r"^torchrun --nnodes 1:2 ": "needs a second machine; tests/end_to_end/test_launch.py has two",
    r"^export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1$": "is for that launch",
    r"^sbatch ": "needs SLURM; tests/end_to_end/test_launch.py runs the script on stand-ins",
    r"--cluster slurm ": "needs SLURM; tests/experiments/test_cluster.py runs it on stand-ins",
    r"^WANDB_MODE=online ": "needs an account of Weights & Biases",
    r"^wandb sync ": "needs an account of Weights & Biases",
    r"^gpt4o-lit dashboard .* --save\b": "needs an account of Weights & Biases",
    r"^tensorboard --logdir ": "serves until it is stopped",
}
"""Commands that are only read, by what they look like, and why."""

FIT = (
    "--trainer.max_steps 2 --trainer.val_check_interval 2 --trainer.check_val_every_n_epoch null "
    "--trainer.limit_val_batches 1 --trainer.log_every_n_steps 1 --model_card.measure false "
    "--samples.max_new_tokens 4 --checkpoint.every_n_train_steps 1"
)
FEWER = {
    "fit": FIT,
    "test": "--trainer.limit_test_batches 1",
    "validate": "--trainer.limit_val_batches 1",
    "generate": "--max_new_tokens 4",
    "chat": "--max_new_tokens 4",
    "predict-file": "--max_new_tokens 4",
    "bench": "--precision fp32 --batch_size 1 --seconds 0.2 --length 32",
    "compress": "--trainer.limit_val_batches 1",
    "sensitivity": "--num_batches 1 --trainer.limit_val_batches 1",
    "explain": "--num_steps 4 --no-png",
    "ledger": "--rounds 1 --max_texts 2 --batch_sizes 1 --length 16 --new_tokens 2",
    "plan": "--devices 1",
    "ablate": "--device h100 --threads 1",
    "sweep": "--threads 1",
}
"""By verb, the flags that make a command short."""
ONE_STEP_MORE = "--trainer.max_steps 4"
BYTES = "--data.init_args.tokenizer gpt4o_lit.tokenizer.Bytes"
OWN_ROWS = ("reviews.yaml", "pairs.yaml", "talks.yaml", "mine.yaml")
"""Overlays whose text is too little for the pieces that their experiment wants."""


def notes(folder: Path) -> None:
    """A folder of notes, as own_text.md has it."""
    (folder / "notes").mkdir()
    for number, page in enumerate(PAGES):
        (folder / "notes" / f"{number}.txt").write_text(text_of(page), encoding="utf-8")


def rows_of_tasks(folder: Path) -> None:
    """Rows of two tasks of the harness, as exchange.md has them."""
    (folder / "rows").mkdir()
    lambada = [{"text": f"he saw a dog and said {word}"} for word in ("yes", "no")]
    piqa = [{"goal": "to sit", "sol1": "take a chair", "sol2": "take a knife", "label": 0}] * 2
    for name, rows in (("lambada", lambada), ("piqa", piqa)):
        lines = "\n".join(map(json.dumps, rows))
        (folder / "rows" / f"{name}.jsonl").write_text(lines + "\n", encoding="utf-8")


WANTED: dict[str, Callable[[Path], None]] = {
    "docs/how_to/own_text.md": notes,
    "docs/exchange.md": rows_of_tasks,
}
"""By page, what a reader of it is taken to have."""


def more_rows(name: str, text: str) -> str:
    """The rows that a page shows, and many more like them."""
    lines = text.rstrip("\n").splitlines()
    if name.endswith(".csv"):
        head, rows = lines[0], lines[1:]
        more = [row.replace(",", f" {n},", 1) for n in range(60) for row in rows]
        return "\n".join([head, *rows, *more]) + "\n"
    if name.endswith(".jsonl"):
        more = [
            line.replace('content": "', f'content": "{n} ', 1) for n in range(60) for line in lines
        ]
        return "\n".join([*lines, *more]) + "\n"
    return text


def shortened(name: str, text: str) -> str:
    """A grid or a sweep with fewer steps, seeds and trials."""
    given = yaml.safe_load(text) if name.endswith(".yaml") else None
    if not isinstance(given, dict) or "base" not in given:
        return text
    given["flags"] = {
        **given.get("flags", {}),
        "trainer.max_steps": 2, "trainer.val_check_interval": 2, "trainer.limit_val_batches": 1,
        "model_card.measure": False, "samples.enabled": False,
    }  # fmt: skip
    for key, few in (("seeds", [0]), ("trials", 2)):
        if key in given:
            given[key] = few
    if "asha" in given:
        given["asha"] = {"first": 2, "factor": 2}
    return yaml.safe_dump(given, sort_keys=False)


@pytest.fixture
def desk(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for one page; the corpus of the quickstart is built once for all."""
    (workshop / "corpora").mkdir(exist_ok=True)
    (tmp_path / "corpora").symlink_to(workshop / "corpora")
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv(RUN_DIR, raising=False)
    yield tmp_path
    sys.modules.pop("lab", None)
    importlib.invalidate_caches()


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_every_command_of_a_page_runs(
    page: str, desk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = text_of(page)
    for name, block in files_in(text).items():
        (desk / name).write_text(more_rows(name, shortened(name, block)), encoding="utf-8")
    WANTED.get(page, lambda folder: None)(desk)
    for command in commands_in(text):
        if any(re.search(like, command.line) for like in NOT_RUN):
            continue
        monkeypatch.setattr("sys.stdin", io.StringIO("hello\n/quit\n"))
        code, said = run(command), capfd.readouterr()
        assert code == 0, f"{page}: {command.line}\n{said.out[-2000:]}\n{said.err[-4000:]}"
        if command.output is not None:
            (desk / command.output).write_text(said.out, encoding="utf-8")


def test_what_is_not_run_is_still_in_the_documentation() -> None:
    lines = [command.line for page in WITH_COMMANDS for command in commands_in(text_of(page))]
    for like, reason in NOT_RUN.items():
        assert any(re.search(like, line) for line in lines), f"{like}: {reason}"


def run(command: Command) -> int:
    """Its exit code. What starts processes of its own is run in one."""
    words = [word for each in command.words for word in found(each)]
    if words[0] == "gpt4o-lit":
        argv = [*words[1:], *fewer(words[1:])]
        if "with/ddp" not in argv:
            return in_this_process(argv)
        words = [sys.executable, "-m", "gpt4o_lit", *argv, "--trainer.devices", "2"]
    elif words[0] == "torchrun":
        at = words.index("--nproc-per-node")
        words[at + 1] = "2"
        words = [sys.executable, "-m", "torch.distributed.run", *words[1:], *fewer(["fit"])]
    else:
        words = [sys.executable, "-m", *words]
    return subprocess.run(words, timeout=600, env={**os.environ, "HF_HUB_OFFLINE": "1"}).returncode


def in_this_process(argv: list[str]) -> int:
    """What the program returns."""
    try:
        return main(argv)
    except SystemExit as stop:  # of --help, --print_config
        return int(stop.code or 0)


def fewer(argv: list[str]) -> list[str]:
    """Flags that make it short."""
    verb = argv[0]
    if verb in ("plan", "configs", "callbacks", "fit") and any(
        flag in argv for flag in ("--print_config", "--model.help")
    ):
        return []
    flags = FEWER.get(verb, "").split()
    if "--dry_run" not in argv and verb == "ablate":
        flags = flags[2:]
    if verb == "predict-file" and "reviews" in " ".join(argv):
        flags = []  # a class is not written piece by piece
    if verb == "fit":
        if "--resume" in argv:
            flags += ONE_STEP_MORE.split()
        if any(name in argv for name in OWN_ROWS) and "pretrained.yaml" not in argv:
            flags += BYTES.split()
        if "with/prune_structured" in argv:
            flags += ["--trainer.callbacks.times", "1"]  # the second cut comes 20 steps later
    return flags


def found(word: str) -> list[str]:
    """The newest run for TIME, the one before for OTHER, and what a pattern matches."""
    while place := re.search(r"^(.*?/)?(TIME|OTHER)(?=/|$)", word):
        folders = sorted(glob.glob(f"{place[1] or ''}*/"), key=os.path.getmtime)
        assert folders, f"{word}: there is none by now"
        chosen = folders[-1] if place[2] == "TIME" else folders[0]
        word = chosen.rstrip("/") + word[place.end() :]
    if "*" in word and "/" in word:
        return sorted(glob.glob(word)) or [word]
    return [word]
