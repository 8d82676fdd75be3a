"""A page for each verb, from the parser that reads its command line."""

import argparse
import contextlib
import importlib
import os
import re
from typing import Any
from unittest import mock

from jsonargparse import set_parsing_settings

from gpt4o_lit.__main__ import VERBS, usage
from gpt4o_lit.cli import ExperimentCLI

FOLDER = "reference/verbs"


def pages() -> dict[str, str]:
    """By path, the index first."""
    rows = [f"| [`{verb}`]({verb}.md) | {what} |" for verb, (_, what) in VERBS.items()]
    index = ["# Verbs", "", "`gpt4o-lit VERB`, and what each does.", "", "| verb | |", "|---|---|"]
    found = {f"{FOLDER}/index.md": "\n".join([*index, *rows, "", *_fenced(usage(), "text")])}
    for verb in VERBS:
        found[f"{FOLDER}/{verb}.md"] = _page(verb)
    return found


def parser_of(verb: str) -> argparse.ArgumentParser:
    """What reads the verb's command line."""
    module = VERBS[verb][0]
    if module == "gpt4o_lit.cli":
        return _lightning_parser(verb)
    parser: argparse.ArgumentParser = importlib.import_module(module).build_parser()
    return parser


class _Unparsed(ExperimentCLI):
    """One that stops before it reads a command line."""

    def parse_arguments(self, parser: Any, args: Any) -> None:
        raise StopIteration


def _lightning_parser(verb: str) -> argparse.ArgumentParser:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)  # as `main` does
    cli = object.__new__(_Unparsed)
    with contextlib.suppress(StopIteration):
        cli.__init__([verb])  # type: ignore[misc]
    parser: argparse.ArgumentParser = cli._parser(verb)
    parser.prog = f"gpt4o-lit {verb}"
    return parser


def _page(verb: str) -> str:
    parser = parser_of(verb)
    with mock.patch.dict(os.environ, COLUMNS="80"):
        text = parser.format_help()
    examples, told = _examples(EXAMPLES.get(verb) or parser.epilog or "")
    lines = [f"# {verb}", ""]
    if VERBS[verb][0] == "gpt4o_lit.cli":
        first = VERBS[verb][1].partition(";")[0]
        lines += [f"{first[0].upper()}{first[1:]}.", "", COMMON, ""]
    else:
        lines += [_cell(parser.description or ""), ""]
    if examples:
        lines += ["## Examples", "", *_fenced(examples, "bash")]
    if told:
        lines += [told, ""]
    if VERBS[verb][0] != "gpt4o_lit.cli":
        lines += ["## Options", "", '<div class="keys" markdown>', ""]
        lines += ["| option | default | |", "|---|---|---|", *_rows(parser), "", "</div>", ""]
    return "\n".join([*lines, "## What `--help` says", "", *_fenced(text, "text")])


COMMON = """`fit`, `validate`, `test` and `predict` read configs and keys:
[how they are joined](../../concepts/configs.md), [every key](../fields/run.md)."""
EXAMPLES = {
    "tokenizer": """gpt4o-lit tokenizer --sources notes/ --output corpora/pieces --vocab_size 1000
gpt4o-lit tokenizer --eval corpora/pieces notes/*.txt""",
    "corpus": """gpt4o-lit corpus --sources notes/ --output corpora/bytes
gpt4o-lit corpus --output corpora/bytes --verify""",
    "configs": """gpt4o-lit configs
gpt4o-lit configs with/lora""",
}
"""Of the verbs whose help has none."""


def _examples(epilog: str) -> tuple[str, str]:
    """The commands of an epilog, and what else it says."""
    lines = epilog.strip().splitlines()
    commands = [line.strip() for line in lines if line.strip().startswith("gpt4o-lit ")]
    others = [line for line in lines if line.strip() not in commands and line != "examples:"]
    if others and others[0].endswith(":"):  # a list, as of what may be said in a chat
        return "\n".join(commands), "\n".join(["```text", *others, "```"])
    return "\n".join(commands), " ".join(" ".join(others).split())


def _rows(parser: argparse.ArgumentParser) -> list[str]:
    rows = []
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or "-h" in action.option_strings:
            continue
        if ".help" in "".join(action.option_strings):
            continue
        said: Any = action.help or ""
        if "%(" in said:
            said = parser._get_formatter()._expand_help(action)
        rows.append(f"| {_name(action)} | {_default(action)} | {_cell(said)} |")
    return rows


def _name(action: argparse.Action) -> str:
    flag = action.option_strings[-1] if action.option_strings else ""
    if action.nargs == 0:
        return f"`{flag}`"
    names = action.metavar if isinstance(action.metavar, tuple) else (action.metavar,)
    words = " ".join(str(name or action.dest.rpartition(".")[2].upper()) for name in names)
    if action.choices is not None:
        words = ", ".join(map(str, action.choices))
    words = words.strip("{}").replace(",", ", ").replace(",  ", ", ")
    return f"`{flag}` {_cell(words)}".strip() if flag else f"`{words}`"


def _default(action: argparse.Action) -> str:
    value = action.default
    if value is None or value == argparse.SUPPRESS or not action.option_strings:
        return ""
    if action.nargs == 0 or value == []:  # a flag that is there or not
        return ""
    if isinstance(value, dict):  # a class, as jsonargparse keeps it
        return f"`{value['class_path'].rpartition('.')[2]}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{' '.join(map(str, value)) if isinstance(value, list | tuple) else value}`"


def _cell(text: str) -> str:
    return " ".join(re.sub(r"([|<*_])", r"\\\1", text).split())


def _fenced(text: str, language: str) -> list[str]:
    return [f"```{language}", text.rstrip(), "```", ""]
