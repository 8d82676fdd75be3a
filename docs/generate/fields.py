"""Tables of every key that a config may set: of the run, and of each class that one may name."""

import argparse
import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

from docstring_parser import parse, parse_from_object
from lightning import Callback, LightningDataModule
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy
from verbs import parser_of

from gpt4o_lit import callbacks, data, objectives, optim, strategies, tasks, tokenizer

FOLDER = "reference/fields"
OPEN: dict[str, tuple[str, types.ModuleType, type, str]] = {
    "tasks": ("Tasks", tasks, tasks.Task, "`model:` is one of these."),
    "objectives": ("Objectives", objectives, objectives.Objective, "`model.init_args.objective`."),
    "optim": (
        "Optimizers and schedules",
        optim,
        object,
        "`model.init_args.optimizer` and `model.init_args.schedule`.",
    ),
    "data": ("Data modules", data, LightningDataModule, "`data:` is one of these."),
    "tokenizer": (
        "Tokenizers",
        tokenizer,
        tokenizer.TokenizerRecipe,
        "`data.init_args.tokenizer`.",
    ),
    "callbacks": ("Callbacks and loggers", callbacks, object, "`trainer.callbacks`."),
    "strategies": ("Strategies", strategies, Strategy, "`trainer.strategy`."),
}
"""By page: its title, the room, what a class of it derives from, and where a config names it."""
BASES = {
    "optim": (optim.OptimizerRecipe, optim.Schedule),
    "callbacks": (Callback, Logger),
}
ROOMS = {
    "model": ("network", "Networks", "`model.init_args.transformer`, and what lies in it."),
    "corpus": ("corpus", "Corpora", "What data modules read: raw text, or tables."),
    "compression": (
        "compression",
        "Compression",
        "What callbacks that prune and quantize are given.",
    ),
}
"""By room, the page of its dataclasses that others name."""


@dataclasses.dataclass(frozen=True)
class Field:
    """One key: its type, its default and a line about it."""

    name: str
    hint: Any
    default: str
    told: str


def pages() -> dict[str, str]:
    """By path, the index first."""
    chosen = {page: _classes(page) for page in OPEN}
    shared = _shared([kind for kinds in chosen.values() for kind in kinds])
    titles = {page: (title, told) for page, (title, _, _, told) in OPEN.items()}
    for room, kinds in shared.items():
        page, title, told = ROOMS.get(room, (room, room.capitalize(), ""))
        chosen[page] = [*chosen.get(page, []), *kinds]
        titles.setdefault(page, (title, told))
    places = {kind: page for page, kinds in chosen.items() for kind in kinds}
    index = ["# Fields of configs", "", INDEX, "", "| page | |", "|---|---|"]
    index.append(
        "| [The run](run.md) | keys beside `model` and `data`: `trainer`, `checkpoint`, ... |"
    )
    found = {f"{FOLDER}/index.md": "", f"{FOLDER}/run.md": _run()}
    for page, kinds in chosen.items():
        title, told = titles[page]
        names = ", ".join(f"[`{kind.__name__}`]({page}.md#{_anchor(kind)})" for kind in kinds)
        index.append(f"| [{title}]({page}.md) | {told}<br>{names} |")
        lines = [f"# {title}", "", told, ""]
        for kind in kinds:
            lines += _section(kind, places)
        found[f"{FOLDER}/{page}.md"] = "\n".join(lines)
    found[f"{FOLDER}/index.md"] = "\n".join(index)
    return found


INDEX = """A key is written with dots as a flag (`--trainer.max_steps 100`), and nested in YAML.
Where a value is a class, YAML has `class_path` and `init_args`; a class of one's own is named
the same way."""


def fields_of(kind: type) -> list[Field]:
    """What `init_args` of a class, or a mapping for a dataclass, may hold, in order."""
    hints = typing.get_type_hints(kind if dataclasses.is_dataclass(kind) else kind.__init__)
    told = _told(kind)
    return [
        Field(name, hints.get(name, Any), _default(kind, parameter), told.get(name, ""))
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


def _default(kind: type, parameter: inspect.Parameter) -> str:
    value = parameter.default
    if value is parameter.empty:
        return "required"
    factories = {
        each.name: each.default_factory
        for each in (dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ())
        if each.default_factory is not dataclasses.MISSING
    }
    if parameter.name in factories:
        value = typing.cast(Callable[[], Any], factories[parameter.name])()
    return spelled_value(value)


def spelled_value(value: Any) -> str:
    """As YAML has it, as code; of an object, its class."""
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if dataclasses.is_dataclass(value) or not isinstance(
        value, str | int | float | list | tuple | dict
    ):
        return f"{type(value).__name__}'s own"
    if isinstance(value, tuple):
        value = list(value)
    return f"`{value if not isinstance(value, str) or value else chr(34) * 2}`"


def _told(kind: type) -> dict[str, str]:
    """The line about each parameter, of the class or the nearest that it derives from."""
    found: dict[str, str] = {}
    for each in kind.__mro__[:-1]:
        found = _told_by(each) | found
    return found


@functools.cache
def _told_by(kind: type) -> dict[str, str]:
    ours = dataclasses.is_dataclass(kind) and "__dataclass_fields__" in vars(kind)
    parsed = parse_from_object(kind) if ours else parse(kind.__doc__ or "")
    both = [*parsed.params, *parse(kind.__init__.__doc__ or "").params]
    return {one.arg_name: " ".join((one.description or "").split()) for one in both}


def _classes(page: str) -> list[type]:
    """Those of a room that a config may name."""
    _, room, base, _ = OPEN[page]
    bases = BASES.get(page, (base,))
    kinds = [getattr(room, name) for name in room.__all__]
    return [
        kind
        for kind in kinds
        if inspect.isclass(kind) and issubclass(kind, bases) and kind not in bases
    ]


def _shared(kinds: list[type]) -> dict[str, list[type]]:
    """Dataclasses of ours that fields of these, and of one another, hold; by room."""
    found: dict[type, None] = {}
    waiting = list(kinds)
    while waiting:
        for field in fields_of(waiting.pop(0)):
            for part in _parts(field.hint):
                ours = inspect.isclass(part) and part.__module__.startswith("gpt4o_lit.")
                if ours and dataclasses.is_dataclass(part) and part not in [*found, *kinds]:
                    found[part] = None
                    waiting.append(part)
    rooms: dict[str, list[type]] = {}
    for kind in found:
        rooms.setdefault(kind.__module__.split(".")[1], []).append(kind)
    return rooms


def _parts(hint: Any) -> list[Any]:
    return [hint] + [part for each in typing.get_args(hint) for part in _parts(each)]


def _anchor(kind: type) -> str:
    return kind.__name__.lower()


def _section(kind: type, places: dict[type, str]) -> list[str]:
    path = kind.__module__.split(".")
    room = ".".join(path[:2])
    first = (inspect.getdoc(kind) or "").partition("\n\n")[0]
    heading = f"## {kind.__name__} {{ #{_anchor(kind)} }}"
    lines = [heading, "", _cell(" ".join(first.split())), "", f"`{room}.{kind.__name__}`", ""]
    rows = fields_of(kind)
    if not rows:
        return [*lines, "It takes nothing.", ""]
    shown = [
        [f"`{each.name}`", spelled(each.hint, places), each.default, _cell(each.told)]
        for each in rows
    ]
    return [*lines, *_table([f"| {' | '.join(cells)} |" for cells in shown])]


def _table(rows: list[str]) -> list[str]:
    """Rows of keys, in a frame that the style sheet knows."""
    titles = ["| key | type | default | |", "|---|---|---|---|"]
    return ['<div class="keys" markdown>', "", *titles, *rows, "", "</div>", ""]


def spelled(hint: Any, places: dict[type, str] | None = None) -> str:
    """A type in a few words, with links to the fields of what has some."""
    if hint is Any or hint is inspect.Parameter.empty:
        return "any"
    if hint is None or hint is type(None):
        return "null"
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(spelled(each, places) for each in arguments)
    if origin is typing.Annotated:
        return spelled(arguments[0], places)
    if origin is not None:
        name = getattr(origin, "__name__", str(origin)).lower()
        if name == "callable":
            return "a function"
        of = ", ".join(spelled(each, places) for each in arguments if each is not Ellipsis)
        word = {"sequence": "list", "tuple": "list", "iterable": "list", "mapping": "dict"}
        return f"{word.get(name, name)} of {of}" if of else name
    name = getattr(hint, "__name__", str(hint))
    if hint in (places or {}):
        return f"[{name}]({(places or {})[hint]}.md#{_anchor(hint)})"
    room = str(getattr(hint, "__module__", "")).split(".")
    if room[0] == "gpt4o_lit" and room[1] in OPEN:  # one of several classes
        return f"[{name}]({room[1]}.md)"
    return name


def _run() -> str:
    """The keys of `fit` that are neither model's nor data's."""
    groups: dict[str, list[str]] = {}
    for action in parser_of("fit")._actions:
        flag = next((each for each in action.option_strings if each.startswith("--")), "")
        key = flag.removeprefix("--")
        if not key or key in ("help", "print_config") or ".help" in key:
            continue
        top, _, rest = key.partition(".")
        if not rest and _groups_others(action) and top not in ("model", "data"):
            continue
        default, told = _shown(action)
        hint = getattr(action, "_typehint", None)
        row = f"| `{key}` | {_type_of(hint)} | {default} | {told} |"
        groups.setdefault(top if rest else "", []).append(row)
    lines = ["# The run", "", RUN, "", *_table(groups.pop(""))]
    for top, rows in groups.items():
        lines += [f"## {top}", "", HEADS.get(top, ""), "", *_table(rows)]
    return "\n".join(lines)


RUN = "What `fit` takes beside [`model`](tasks.md) and [`data`](data.md)."
HELD = {
    "seed_everything": "Of first weights, dropout and what an objective draws; `true` draws one.",
    "trainer.default_root_dir": "Set by the run directory.",
    "model": "The [task](tasks.md).",
    "data": "The [data module](data.md).",
    "ckpt_path": "A checkpoint to go on from; `--resume RUN` sets it.",
    "weights_only": "Set by the program: a checkpoint is never unpickled.",
}
"""Lines of our own about keys whose meaning here is narrower than Lightning's."""
HEADS = {
    "trainer": "Of Lightning: "
    "[Trainer](https://lightning.ai/docs/pytorch/stable/common/trainer.html). "
    "[Strategies](strategies.md) and [callbacks](callbacks.md) of ours are named here.",
    "checkpoint": "[Checkpoint](callbacks.md#checkpoint), which each run has.",
    "throughput": "[Throughput](callbacks.md#throughput), which each run has.",
    "samples": "[Samples](callbacks.md#samples), which each run has.",
    "model_card": "[ModelCard](callbacks.md#modelcard), which each run has.",
    "progress": "[Progress](callbacks.md#progress), which each run has.",
}


def _groups_others(action: argparse.Action) -> bool:
    return not hasattr(action, "_typehint")


def _shown(action: argparse.Action) -> tuple[str, str]:
    told = HELD.get(action.dest) or " ".join((action.help or "").split())
    if action.dest.startswith("trainer."):
        told = _first_sentence(told)
    if action.default is argparse.SUPPRESS or action.option_strings[-1] == "--config":
        return "", _cell(told)
    return spelled_value(action.default), _cell(told)


def _first_sentence(text: str) -> str:
    """Lightning tells more than a line; and its docstrings have two backticks for one."""
    text = re.sub(r":\w+:`[~.]*", "`", text.replace("``", "`"))
    end = re.search(r"[a-z0-9)\]`\"']\.( |$)", text)
    return text[: end.end()].strip() if end else text


def _type_of(hint: Any) -> str:
    if hint is None:
        return "file"
    text = spelled(hint)
    return text if len(text) < 90 else " or ".join(dict.fromkeys(text.split(" or ")))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("%%", "%")
