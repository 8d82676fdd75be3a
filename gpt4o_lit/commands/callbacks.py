"""`gpt4o-lit callbacks`: what can happen in a run, by which settings, and which of it combines."""

import difflib
import importlib
import inspect
import textwrap
from typing import Any

from docstring_parser import parse

from gpt4o_lit.callbacks.combining import cannot_be_with, is_callback, ours_by_name
from gpt4o_lit.parse_errors import OneLineParser
from gpt4o_lit.strategies import FSDP2, DeepSpeed, TensorParallel
from gpt4o_lit.strategies.needs import unmet
from gpt4o_lit.strategies.parts import HoldsParts

ALWAYS = {
    "Checkpoint": "--checkpoint.*",
    "ModelCard": "--model_card.*",
    "Progress": "--progress.*",
    "Samples": "--samples.*",
    "Throughput": "--throughput.*",
    **dict.fromkeys(
        (
            "Artefact",
            "Departures",
            "Elastic",
            "Manifest",
            "Plots",
            "Predictions",
            "RandomState",
            "SaveConfig",
        ),
        "",
    ),
}
"""Those that each run has, and the keys by which some are set."""
IN_PARTS: dict[str, type[HoldsParts]] = {
    "fsdp2": FSDP2,
    "tensor_parallel": TensorParallel,
    "deepspeed_zero1": DeepSpeed,
}
"""Strategies that not everybody can be with, by an overlay of each."""
EXAMPLE = """examples:
  gpt4o-lit callbacks                          # ours, one line each
  gpt4o-lit callbacks MagnitudePruning         # one, with each parameter told
  gpt4o-lit callbacks my_callbacks.Foo         # one of yours, from the folder that you stand in

An overlay switches one on: `gpt4o-lit configs with/prune_magnitude` prints one."""


def build_parser() -> OneLineParser:
    """The verb's options."""
    parser = OneLineParser(
        "callbacks",
        "List the callbacks with their parameters, and what each cannot be on with.",
        epilog=EXAMPLE,
    )
    parser.add_argument("name", nargs="?", help="tell all about this one, ours or MODULE.CLASS")
    return parser


def main(argv: list[str]) -> int:
    """Print the table, or one callback whole."""
    name = build_parser().parse_args(argv).name
    ours = ours_by_name()
    if name is not None:
        print("\n".join(_whole(name, _found(name, ours), ours)))
        return 0
    print("by an overlay (trainer: callbacks+: - class_path: gpt4o_lit.callbacks.NAME):\n")
    for each, kind in ours.items():
        if each not in ALWAYS:
            print("\n".join(_entry(each, kind, ours)))
    print("\nin each run, some set by keys:\n")
    for each, keys in ALWAYS.items():
        first, *rest = _entry(each, ours[each], ours)
        print("\n".join([f"{first}  [{keys}]", *rest] if keys else [first]))
    return 0


def _found(name: str, ours: dict[str, type]) -> type:
    """One of ours, or of a module that can be imported from here.

    Raises:
        ValueError: there is none; the message names the nearest.
    """
    module, _, short = name.rpartition(".")
    if module in ("", "gpt4o_lit.callbacks"):
        if short not in ours:
            near = difflib.get_close_matches(short, ours, n=1)
            mend = f"did you mean '{near[0]}'?" if near else "`gpt4o-lit callbacks` lists them"
            raise ValueError(f"{short} is no callback of ours; {mend}")
        return ours[short]
    try:
        kind = getattr(importlib.import_module(module), short)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{name} cannot be imported from here ({error}); check its name"
        ) from error
    if not is_callback(kind):
        raise ValueError(f"{name} is no lightning.Callback; let the class derive from it")
    return kind


def _entry(name: str, kind: type, ours: dict[str, type]) -> list[str]:
    """Two or three lines: what it does, its parameters, what it refuses."""
    lines = [f"  {name:<26} {_first_line(kind)}"]
    parameters = ", ".join(_parameters(kind).values())
    if parameters:
        lines += textwrap.wrap(parameters, 110, initial_indent=" " * 31, subsequent_indent=" " * 31)
    refused = _refused(kind, ours)
    return [*lines, f"{' ' * 31}not with {refused}"] if refused else lines


def _whole(name: str, kind: type, ours: dict[str, type]) -> list[str]:
    told = parse(kind.__doc__ or "")
    lines = [name, "", (inspect.getdoc(kind) or "").partition("\nArgs:")[0].strip()]
    described = {each.arg_name: each.description or "" for each in told.params}
    if _parameters(kind):
        lines += ["", "parameters:"]
    for parameter, shown in _parameters(kind).items():
        text = " ".join(described.get(parameter, "").split())
        lines.append(f"  {shown}")
        lines += textwrap.wrap(text, 90, initial_indent=" " * 6, subsequent_indent=" " * 6)
    refused = _refused(kind, ours)
    return [*lines, "", f"not with {refused}"] if refused else lines


def _parameters(kind: type) -> dict[str, str]:
    """By name, each with its default."""
    found = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        given: Any = parameter.default
        found[name] = name if given is parameter.empty else f"{name}={given!r}"
    return found


def _refused(kind: type, ours: dict[str, type]) -> str:
    refused = list(cannot_be_with(kind, ours))
    for name, strategy in IN_PARTS.items():
        if unmet(kind, strategy.lacks):
            refused.append(f"--config with/{name}")
    return ", ".join(refused)


def _first_line(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]
