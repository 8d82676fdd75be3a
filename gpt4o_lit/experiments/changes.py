"""What a variant changes: overlays, keys, callbacks; and how it is written down in a grid file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

CALLBACKS = "gpt4o_lit.callbacks"
EDITS = ("add", "remove", "swap")
NOT_A_VARIANTS = ("run_dir", "ckpt_path", "name", "seed_everything")

Entry = dict[str, Any]
"""A callback as a config has it: class_path and init_args."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What is laid over an experiment."""

    configs: tuple[str, ...] = ()
    """Overlays, as behind --config."""
    keys: Mapping[str, Any] = field(default_factory=dict)
    """Values of dotted keys, as behind --KEY."""
    add: tuple[Entry, ...] = ()
    """Callbacks that come behind the others."""
    remove: tuple[str, ...] = ()
    """Names of callbacks' classes."""
    swap: Mapping[str, Entry] = field(default_factory=dict)
    """The callback in the place of one, by the name of its class."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Values of CLASS.ARGUMENT of callbacks that the experiment has."""

    @property
    def edits_callbacks(self) -> bool:
        """Whether the list of callbacks is another one."""
        return bool(self.add or self.remove or self.swap or self.arguments)

    @property
    def flags(self) -> list[str]:
        """Overlays and keys as flags of `fit`."""
        flags = [word for config in self.configs for word in ("--config", config)]
        return flags + [f"--{key}={_as_flag(value)}" for key, value in self.keys.items()]

    def told(self) -> list[str]:
        """A line for each change."""
        lines = [f"--config {config}" for config in self.configs]
        lines += [f"{key}={_as_flag(value)}" for key, value in self.keys.items()]
        lines += [f"callbacks + {_entry_told(entry)}" for entry in self.add]
        lines += [f"callbacks - {name}" for name in self.remove]
        lines += [f"callbacks {name} -> {_entry_told(e)}" for name, e in self.swap.items()]
        lines += [f"callbacks.{key}={_as_flag(value)}" for key, value in self.arguments.items()]
        return lines

    def with_(self, other: "Changes") -> "Changes":
        """Both.

        Raises:
            ValueError: they change the same thing.
        """
        for name in ("keys", "swap", "arguments"):
            both = getattr(self, name).keys() & getattr(other, name).keys()
            if both:
                raise ValueError(f"{min(both)} is changed twice; leave one of them out")
        return replace(
            self,
            configs=self.configs + other.configs,
            keys={**self.keys, **other.keys},
            add=self.add + other.add,
            remove=self.remove + other.remove,
            swap={**self.swap, **other.swap},
            arguments={**self.arguments, **other.arguments},
        )


def read_changes(body: Any) -> Changes:
    """Of a mapping in a grid file: `config`, `callbacks`, callbacks.CLASS.ARGUMENT, dotted keys.

    Raises:
        ValueError: it is no such mapping.
    """
    if body is None:
        return Changes()
    if not isinstance(body, Mapping):
        raise ValueError(f"{body!r} must be a mapping of keys to values; write {{KEY: VALUE}}")
    values = {str(key): value for key, value in body.items()}
    for key in NOT_A_VARIANTS:
        if key in values:
            mend = "list seeds under `seeds`" if key == "seed_everything" else "leave it out"
            raise ValueError(f"{key} is set for each run; {mend}")
    edits = values.pop("callbacks", None) or {}
    configs = _listed(values.pop("config", None))
    prefix = "callbacks."
    return Changes(
        configs=tuple(str(config) for config in configs if config is not None),
        keys={key: value for key, value in values.items() if not key.startswith(prefix)},
        arguments={
            key.removeprefix(prefix): value
            for key, value in values.items()
            if key.startswith(prefix)
        },
        **_read_edits(edits),
    )


def _read_edits(edits: Any) -> dict[str, Any]:
    if not isinstance(edits, Mapping):
        raise ValueError(f"callbacks ({edits!r}) must have {', '.join(EDITS)}")
    for word in edits:
        require_word(f"callbacks.{word}", str(word), EDITS)
    swap = edits.get("swap") or {}
    if not isinstance(swap, Mapping):
        raise ValueError(f"callbacks.swap ({swap!r}) must map a class to another; write {{A: B}}")
    return {
        "add": tuple(_entry(each) for each in _listed(edits.get("add"))),
        "remove": tuple(str(name) for name in _listed(edits.get("remove"))),
        "swap": {str(name): _entry(each) for name, each in swap.items()},
    }


def edited(callbacks: list[Entry], changes: Changes) -> list[Entry]:
    """The callbacks of an experiment as a variant has them.

    Raises:
        ValueError: a class that is to change is not among them; the message names the nearest.
    """
    entries = [json.loads(json.dumps(entry)) for entry in callbacks]
    for name in changes.remove:
        del entries[_place(entries, name, "remove")]
    for name, other in changes.swap.items():
        entries[_place(entries, name, "swap")] = other
    entries += changes.add
    for key, value in changes.arguments.items():
        name, _, argument = key.partition(".")
        if not argument:
            raise ValueError(f"callbacks.{key} names no argument; write callbacks.{key}.ARGUMENT")
        place = _place(entries, name, "change")
        entries[place] = _with_argument(entries[place], argument.split("."), value)
    return entries


def require_word(place: str, word: str, known: tuple[str, ...], file: str = "grid") -> None:
    """Refuse a word that is none of those.

    Raises:
        ValueError: names the nearest one.
    """
    if word not in known:
        near = get_close_matches(word, known, 1)
        mend = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(known)}"
        raise ValueError(f"{place} is no key of a {file} file; {mend}")


def class_name(entry: Entry) -> str:
    """The last part of its class path."""
    return str(entry["class_path"]).rpartition(".")[2]


def _place(entries: list[Entry], name: str, verb: str) -> int:
    names = [class_name(entry) for entry in entries]
    wanted = name.rpartition(".")[2]
    if names.count(wanted) == 1:
        return names.index(wanted)
    if wanted in names:
        raise ValueError(f"callbacks has several {wanted}; {verb} them by an overlay of your own")
    near = get_close_matches(wanted, names, 1)
    there = f"there are {', '.join(names)}" if names else "there are none"
    raise ValueError(
        f"no callback {wanted} to {verb}; " + (f"did you mean '{near[0]}'?" if near else there)
    )


def _with_argument(entry: Entry, path: list[str], value: Any) -> Entry:
    arguments = dict(entry.get("init_args") or {})
    within = arguments
    for word in path[:-1]:
        within[word] = dict(within.get(word) or {})
        within = within[word]
    within[path[-1]] = value
    return entry | {"init_args": arguments}


def _entry(given: Any) -> Entry:
    entry = {"class_path": given} if isinstance(given, str) else given
    if not isinstance(entry, Mapping) or not isinstance(entry.get("class_path"), str):
        raise ValueError(f"{given!r} is no callback; write NAME or {{class_path: NAME}}")
    path = str(entry["class_path"])
    return dict(entry) | {"class_path": path if "." in path else f"{CALLBACKS}.{path}"}


def _listed(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


def _as_flag(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _entry_told(entry: Entry) -> str:
    arguments = entry.get("init_args")
    return class_name(entry) + (f" {json.dumps(arguments)}" if arguments else "")
