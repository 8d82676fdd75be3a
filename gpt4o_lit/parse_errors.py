"""Turns what the parser says of a mistake into one line that names the nearest right word."""

import argparse
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, NoReturn

# What jsonargparse wraps around a cause, from the outside in.
WRAPPINGS = (
    r'Parser key "[^"]*":?',
    r"- ?(?=Does not validate)",
    r"Does not validate against any of the Union subtypes",
    r"Subtypes: \[.*?\](?= Errors:)",
    r"Subtypes: \[.*?\]$",
    r"Errors:( -)?",
    r"Expected a path but \S+ either not accessible or invalid",
    r"(- )?Expected a <class 'NoneType'>.*$",
    r"(- )?Given value.*$",
    r"^Expected a <class 'str'> -(?= \S)",  # a class or a word
    r"(- )?Not a valid subclass of \w+ Subclass types expect one of:.*$",
)
HINT = "did you mean"


class OneLineParser(argparse.ArgumentParser):
    """A verb's parser, which raises what is wrong with the command line and the nearest right word.

    Args:
        verb: What stands behind `gpt4o-lit`.
        description: What it does; broken into lines.
        epilog: Examples, with lines as they are.
        formatter_class: How the options are told.
    """

    def __init__(
        self,
        verb: str,
        description: str,
        epilog: str | None = None,
        formatter_class: Any = argparse.RawDescriptionHelpFormatter,
    ) -> None:
        super().__init__(
            prog=f"gpt4o-lit {verb}",
            description=textwrap.fill(description, 90),
            epilog=epilog,
            formatter_class=formatter_class,
            allow_abbrev=False,  # half a flag is a mistake too
        )

    def parse_with_keys(self, argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
        """The options, and what is left: keys of a config, such as --trainer.max_steps 1."""
        args, others = self.parse_known_args(argv)
        for word in others:
            if word.startswith("-") and "." not in word:
                self.error(f"unrecognized arguments: {word}")
        return args, others

    def error(self, message: str) -> NoReturn:
        """Argparse itself would print its usage and exit.

        Raises:
            ValueError: always.
        """
        options = [option for action in self._actions for option in action.option_strings]
        raise ValueError(explain(message, [option.removeprefix("--") for option in options]))


def explain(message: str, known_keys: Iterable[str] = ()) -> str:
    """One line: where the mistake is, what it is, and the nearest right word where there is one.

    Args:
        message: What the parser or a config said.
        known_keys: Keys that the parser knows, as written after `--`.
    """
    keys = list(dict.fromkeys(re.findall(r'Parser key "([^"]+)"', message)))
    cause = " ".join(message.split())
    for wrapping in WRAPPINGS:
        cause = " ".join(re.sub(wrapping, " ", cause).split())
    cause = re.sub(r"^(.+?)( - \1)+$", r"\1", cause.strip(" -"))  # once for each type it may have
    cause = cause or "the command line could not be read"
    cause = cause.replace(".help'", "'")  # the parser may mean `optimizer` by `optimizer.help`
    line = f"{'.'.join(keys)}: {cause}" if keys else cause
    near = None
    if HINT not in cause:
        near = _near_class(message) or _near_bare_class(cause) or _near_choice(cause)
        near = near or _near_argument(cause) or _near_key(cause, known_keys)
    return f"{line}; {HINT} '{near}'?" if near else line


def _near_class(message: str) -> str | None:
    """The nearest name in the module of a class path that does not exist."""
    said = re.sub(r"https?://\S+", "", message)  # the parts of an address are no modules
    for path in re.findall(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", said):
        module_name, _, name = path.rpartition(".")
        if not module_name.startswith(("gpt4o_lit", "lightning", "torch")):
            continue
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue
        if not hasattr(module, name):
            public = {each.lower(): each for each in dir(module) if each[0].isupper()}
            near = get_close_matches(name.lower(), public, 1, cutoff=0.5)
            if near:
                return f"{module_name}.{public[near[0]]}"
    return None


def _near_bare_class(cause: str) -> str | None:
    """The nearest class of our rooms to a name without a path that is none of theirs."""
    found = re.search(r"Expected a dot import path string: (\w+)", cause)
    if found is None:
        return None
    rooms = [module for name, module in sys.modules.items() if name.startswith("gpt4o_lit.")]
    names = {name for room in rooms for name in getattr(room, "__all__", ()) if name[0].isupper()}
    return next(iter(get_close_matches(found[1], names, 1)), None)


def _near_choice(cause: str) -> str | None:
    """The nearest of the words that the parser says one may choose from."""
    patterns = (
        r"invalid choice: '(?P<given>[^']+)' \(choose from (?P<words>.+)\)",
        r"Literal\[(?P<words>[^]]+)\]\. Got value: (?P<given>\S+)",
    )
    for pattern in patterns:
        if found := re.search(pattern, cause):
            words = re.findall(r"[\w.-]+", found["words"])
            return next(iter(get_close_matches(found["given"], words, 1, cutoff=0.5)), None)
    return None


def _near_argument(cause: str) -> str | None:
    """The nearest argument of a class to one that it does not take."""
    found = re.search(r"class_path '([\w.]+)': Option '(\w+)'", cause)
    if found is None:
        return None
    module_name, _, name = found[1].rpartition(".")
    taken = getattr(sys.modules.get(module_name), name, None)
    arguments = inspect.signature(taken).parameters if inspect.isclass(taken) else ()
    return next(iter(get_close_matches(found[2], arguments, 1)), None)


def _near_key(cause: str, known_keys: Iterable[str]) -> str | None:
    """The nearest key of the parser to one that it did not recognise."""
    known = set(known_keys)
    for dashes, key in re.findall(r"(--|[Oo]ption ')([A-Za-z_][\w.+-]*)", cause):
        near = get_close_matches(key, known - {key}, 1, cutoff=0.6)
        if key not in known and near:
            return near[0] if dashes.endswith("'") else f"--{near[0]}"
    return None
