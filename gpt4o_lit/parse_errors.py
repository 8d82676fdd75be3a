"""Turns what the parser says of a mistake into one line that names the nearest right word."""

import importlib
import re
from difflib import get_close_matches
from typing import Any


def explain(message: str, parser: Any) -> str:
    """One line: what is wrong, and the nearest key, class or file where there is one."""
    line = _first_cause(message)
    near = _near_class(message) or _near_key(message, parser)
    return f"{line}; did you mean '{near}'?" if near else line


def _first_cause(message: str) -> str:
    lines = [line.strip(" -") for line in str(message).splitlines() if line.strip()]
    return " ".join(lines)[:400] if lines else "the command line could not be read"


def _near_class(message: str) -> str | None:
    """The nearest name in the module of a class path that does not exist."""
    for path in re.findall(r"[A-Za-z_][\w]*(?:\.[A-Za-z_]\w*)+", message):
        module_name, _, name = path.rpartition(".")
        if not module_name.startswith(("gpt4o_lit", "lightning", "torch")):
            continue
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue
        if not hasattr(module, name):
            near = get_close_matches(name, [n for n in dir(module) if n[0] != "_"], 1, cutoff=0.5)
            if near:
                return f"{module_name}.{near[0]}"
    return None


def _near_key(message: str, parser: Any) -> str | None:
    """The nearest key of the parser, or of the options that the message itself lists."""
    known = {action.dest for action in parser._actions} | {
        flag.lstrip("-") for action in parser._actions for flag in action.option_strings
    }
    for key in re.findall(r"(?:--|[\"'`])([A-Za-z_][\w.+]*)", message):
        if key not in known:
            near = get_close_matches(key, known, 1, cutoff=0.6)
            if near:
                return near[0]
    return None
