"""What documents tell a reader to write and to run, and how the program reads it."""

import contextlib
import functools
import importlib
import importlib.util
import io
import itertools
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4o_lit import configs
from gpt4o_lit.__main__ import VERBS
from gpt4o_lit.cli import resolve
from gpt4o_lit.experiments.grid import find_grid, read_grid
from gpt4o_lit.experiments.sweep_file import read_sweep

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
sys.path.append(str(DOCS / "generate"))
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in DOCS.rglob("*.md"))
LIGHTNINGS = ("fit", "validate", "test", "predict")
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.S | re.M)


@dataclass(frozen=True)
class Command:
    """A line of a `bash` block."""

    line: str

    @property
    def words(self) -> list[str]:
        """Without comment, variables in front and the file that it writes to."""
        words = shlex.split(self.line, comments=True)
        while words and re.fullmatch(r"[A-Z_0-9]+=\S*", words[0]):
            words = words[1:]
        return words[: words.index(">")] if ">" in words else words

    @property
    def output(self) -> str | None:
        """The file that it writes to."""
        words = shlex.split(self.line, comments=True)
        return words[words.index(">") + 1] if ">" in words else None

    @property
    def ours(self) -> list[str] | None:
        """Verb and flags, where gpt4o-lit is what is run in the end."""
        words = self.words
        if words[0] == "gpt4o-lit":
            return words[1:]
        if words[0] == "torchrun":
            return words[words.index("gpt4o_lit") + 1 :]
        return ["fit", *words[2:]] if words[0] == "sbatch" else None


def commands_in(text: str) -> list[Command]:
    """The lines of `bash` blocks, those that go on behind a backslash joined."""
    blocks = [block for language, _, block in FENCE.findall(text) if language == "bash"]
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [Command(line.strip()) for line in lines if line.strip()]


def files_in(text: str) -> dict[str, str]:
    """By name, the files that a page has its reader write: blocks with a title."""
    return {title: block for _, title, block in FENCE.findall(text) if title}


def text_of(page: str) -> str:
    """A page of the project, or one that the site makes."""
    if (ROOT / page).is_file():
        return (ROOT / page).read_text(encoding="utf-8")
    return generated()[page]


@functools.cache
def generated() -> dict[str, str]:
    """The pages that the site makes of verbs and packaged configs, by path."""
    return {
        **importlib.import_module("verbs").pages(),
        **importlib.import_module("packaged").pages(),
    }


@functools.cache
def parser_of(verb: str) -> Any:
    """What reads the verb's command line."""
    return importlib.import_module("verbs").parser_of(verb)


def require_readable(command: Command) -> None:
    """Read a command as what it starts would, without running it; in the folder of its page.

    Raises:
        ValueError: it is mistyped, or nobody knows how to read it.
    """
    reader = READERS.get(command.words[0])
    if reader is None:
        raise ValueError(f"no test knows how to read `{command.words[0]}`; add it to READERS")
    reader(command.words[1:])
    if command.ours is not None:
        _read_ours(*_split(command.ours))


def _split(ours: list[str]) -> tuple[str, list[str]]:
    verb, *flags = ours
    if verb not in VERBS:
        raise ValueError(f"no verb '{verb}'")
    return verb, flags


def _read_ours(verb: str, flags: list[str]) -> None:
    if flags == ["--help"]:
        return
    if verb in LIGHTNINGS:
        _read_fit(verb, flags)
    elif verb == "plan":
        _, keys = parser_of("plan").parse_known_args(flags)
        _read_fit("fit", keys)
    elif verb in ("compress", "sensitivity"):
        args, keys = parser_of(verb).parse_with_keys(flags)
        _read_fit("validate", ["--config", "quickstart", *keys])
        recipe = getattr(args, "recipe", None)
        if recipe is not None and "/" not in recipe:
            configs.find(f"compress/{recipe}")
    else:
        args = parser_of(verb).parse_args(flags)
        if verb == "ablate":
            _read_grid(args.grid)
        elif verb == "sweep" and Path(args.file).is_file():
            read_sweep(Path(args.file))
        elif verb == "configs" and args.name:
            configs.find(args.name)
        elif verb == "bench" and not args.network.startswith("run"):
            configs.find(args.network)


def _read_fit(verb: str, flags: list[str]) -> None:
    if "--resume_from" in flags:  # which looks into checkpoints
        at = flags.index("--resume_from")
        assert flags[at + 1] in ("last", "previous")
        flags = flags[:at] + flags[at + 2 :]
    for flag, word in itertools.pairwise(flags):
        if flag in ("--resume", "--from"):
            stand_in(Path(word))
    if any(Path(word).exists() for word in flags):
        _parse(verb, *flags)
    else:
        _parse_once(verb, *flags)


def _parse(verb: str, *flags: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            parser_of(verb).parse_args(resolve([verb, *flags])[0][1:])
        except SystemExit as stop:  # of --help, --print_config
            if stop.code:
                raise ValueError(f"{verb} {' '.join(flags)} ends with {stop.code}") from stop


_parse_once = functools.cache(_parse)
"""Where all that the flags name is packaged: pages show the same few commands again and again."""


def stand_in(run: Path) -> None:
    """What reading the command line needs of a run that there would be by then."""
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    for name in ("best.ckpt", "last.ckpt"):
        (run / "checkpoints" / name).touch()
    shutil.copyfile(configs.find("quickstart"), run / "config.yaml")


def _read_grid(name: str) -> None:
    if name.endswith(".yaml") and not Path(name).is_file():
        return  # the reader's own, in an example of `--help`
    grid = read_grid(find_grid(name))
    for changes in grid.all_variants.values():
        _read_fit("fit", grid.base.flags + changes.flags)


def _read_pip(words: list[str]) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = settings["project"]["optional-dependencies"]
    found = re.fullmatch(r"install gpt4o-lit\[([\w,-]+)\]", " ".join(words))
    if not found or set(found[1].split(",")) - set(extras):
        raise ValueError(f"pip {' '.join(words)}: not one of the extras {', '.join(extras)}")


def _read_make(words: list[str]) -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    if not all(re.search(rf"^{word}:", text, re.M) for word in words):
        raise ValueError(f"make {' '.join(words)}: the Makefile has no such target")


def _read_torchrun(words: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    args = get_args_parser().parse_args(words)
    assert args.module
    assert args.training_script == "gpt4o_lit"


def _read_sbatch(words: list[str]) -> None:
    assert words[0] == "slurm.sbatch"


def _read_installed(program: str) -> Callable[[list[str]], None]:
    def read(words: list[str]) -> None:
        if shutil.which(program, path=Path(sys.executable).parent.as_posix()) is None:
            assert importlib.util.find_spec(program), f"{program} is not installed"

    return read


def _nothing(words: list[str]) -> None:
    """Read by what follows, or by the shell."""


READERS: dict[str, Callable[[list[str]], None]] = {
    "gpt4o-lit": _nothing,
    "export": _nothing,
    "torchrun": _read_torchrun,
    "sbatch": _read_sbatch,
    "pip": _read_pip,
    "make": _read_make,
    **{program: _read_installed(program) for program in ("tensorboard", "wandb", "lm_eval")},
}
