"""Grid files: a base, what varies, seeds; and the variants that they come to.

`variants` are written out; `one_at_a_time`, `grid` and `paired` make them of lists of values.
"""

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import yaml

from gpt4o_lit import configs
from gpt4o_lit.experiments.changes import Changes, read_changes, require_word

SHAPES = ("variants", "one_at_a_time", "grid", "paired")
KEYS = ("name", "base", "flags", "metric", "mode", "seeds", "compare_to", *SHAPES)
BASE = "base"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,=+-]*")
CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Experiments that differ in what one wants to know about."""

    name: str
    """Runs lie in runs/ablations/NAME."""
    base: Changes
    """What all have: configs, and keys over them."""
    variants: dict[str, Changes]
    """What each changes in the base."""
    seeds: tuple[int, ...]
    """Each variant is run with each."""
    metric: str
    """By which variants are compared, such as val/loss."""
    mode: Literal["min", "max"]
    """Whether the lowest is best or the highest."""
    compare_to: str
    """The variant that the others are compared to; `base` is the experiment as it is."""

    @property
    def all_variants(self) -> dict[str, Changes]:
        """With the base, if it is one of them, first."""
        own = {BASE: Changes()} if self.compare_to == BASE else {}
        return {**own, **self.variants}


def find_grid(name: str) -> Path:
    """The path of a grid file: a file as given, else a packaged one by its name.

    Raises:
        FileNotFoundError: neither exists; the message names the nearest one.
    """
    if not Path(name).is_file() and "/" not in name:
        name = f"{configs.GRIDS}/{name}"
    return configs.find(name)


def read_grid(path: Path) -> Grid:
    """Read a grid file.

    Raises:
        ValueError: it is none; the message names the place and the mend.
    """
    return read_file(path, _read)


T = TypeVar("T")


def read_file(path: Path, read: Callable[[Any, str], T]) -> T:
    """What `read` makes of a YAML file and its name.

    Raises:
        ValueError: the file is no YAML, or `read` refuses it; the message names the file.
    """
    try:
        return read(yaml.load(path.read_text(encoding="utf-8"), Loader=OnceLoader), path.stem)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_mode(given: Any) -> Literal["min", "max"]:
    """Which value of a metric is best.

    Raises:
        ValueError: it is neither.
    """
    if given not in ("min", "max"):
        raise ValueError(f"mode ({given}) must be min or max")
    return cast(Literal["min", "max"], given)


def _read(values: Any, stem: str) -> Grid:
    if not isinstance(values, Mapping):
        raise ValueError("a grid file is a mapping; `gpt4o-lit configs grid/qat_start` shows one")
    for key in values:
        require_word(str(key), str(key), KEYS)
    shapes = [shape for shape in SHAPES if shape in values]
    if not shapes:
        raise ValueError(f"nothing varies; write one of {', '.join(SHAPES)}")
    if not values.get("base"):
        raise ValueError("base is missing; name an experiment, such as `base: quickstart`")
    mode, name = read_mode(values.get("mode", "min")), str(values.get("name", stem))
    require_name(name)
    variants: dict[str, Changes] = {}
    for shape in shapes:
        found = _READERS[shape](values[shape])
        if not found:
            raise ValueError(f"{shape} is empty; write down at least one value")
        for twice in variants.keys() & found.keys():
            raise ValueError(f"{shape} makes a second variant '{twice}'; rename the other")
        variants |= found
    compare_to = str(values.get("compare_to", BASE))
    if BASE in variants:
        raise ValueError("`base` is the name of the experiment as it is; rename the variant")
    require_word(f"compare_to: {compare_to}", compare_to, (BASE, *variants))
    return Grid(
        name=name,
        base=read_changes({"config": values["base"]}).with_(read_changes(values.get("flags"))),
        variants=variants,
        seeds=_read_seeds(values.get("seeds", [0])),
        metric=str(values.get("metric", "val/loss")),
        mode=mode,
        compare_to=compare_to,
    )


def _read_seeds(given: Any) -> tuple[int, ...]:
    seeds = given if isinstance(given, list) else [given]
    if not seeds or any(not isinstance(s, int) or isinstance(s, bool) or s < 0 for s in seeds):
        raise ValueError(f"seeds ({given!r}) must be whole numbers; write seeds: [0, 1, 2]")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds ({given!r}) has one twice; leave it out")
    return tuple(seeds)


def _read_variants(given: Any) -> dict[str, Changes]:
    variants = {}
    for name, body in _mapping(given, "variants").items():
        require_name(name)
        try:
            variants[name] = read_changes(body)
        except ValueError as error:
            raise ValueError(f"variant {name}: {error}") from error
    return variants


Axis = dict[str, Changes]
"""What may stand for a key, by its name."""


def _read_axes(given: Any, shape: str) -> list[Axis]:
    axes = _mapping(given, shape)
    short = _short_names(list(axes))
    return [_read_axis(key, short[key], values) for key, values in axes.items()]


def _read_axis(key: str, short: str, values: Any) -> Axis:
    """`KEY: [VALUE, VALUE]`, or `WORD: {NAME: CHANGES, NAME: CHANGES}`."""
    if isinstance(values, Mapping):
        axis = {f"{short}={name}": read_changes(body) for name, body in values.items()}
    elif isinstance(values, list):
        axis = {f"{short}={_value_told(value)}": read_changes({key: value}) for value in values}
    else:
        raise ValueError(f"{key} ({values!r}) must be a list of values, or names with changes")
    if len(axis) < len(values):
        raise ValueError(f"{key}: two values have one name; write {{NAME: CHANGES, …}} instead")
    for name in axis:
        require_name(name)
    return axis


def _one_at_a_time(given: Any) -> dict[str, Changes]:
    return {
        name: each for axis in _read_axes(given, "one_at_a_time") for name, each in axis.items()
    }


def _full(given: Any) -> dict[str, Changes]:
    return _joined(itertools.product(*(axis.items() for axis in _read_axes(given, "grid"))))


def _paired(given: Any) -> dict[str, Changes]:
    axes = _read_axes(given, "paired")
    lengths = {len(axis) for axis in axes}
    if len(lengths) > 1:
        found = ", ".join(f"{key} has {len(axis)}" for key, axis in zip(given, axes, strict=True))
        raise ValueError(f"paired lists must be equally long; {found}")
    return _joined(zip(*(axis.items() for axis in axes), strict=True))


def _joined(points: Any) -> dict[str, Changes]:
    """A variant of each point."""
    variants = {}
    for point in points:
        changes = Changes()
        for _, each in point:
            changes = changes.with_(each)
        variants[",".join(name for name, _ in point)] = changes
    return variants


_READERS = {
    "variants": _read_variants,
    "one_at_a_time": _one_at_a_time,
    "grid": _full,
    "paired": _paired,
}


def _mapping(given: Any, place: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(f"{place} must be a mapping; write {place}: {{NAME: …}}")
    return {str(key): value for key, value in given.items()}


def require_name(name: str) -> None:
    """Refuse what could not name a folder.

    Raises:
        ValueError: always then.
    """
    if not NAME.fullmatch(name):
        raise ValueError(
            f"'{name}' names a folder: take letters, digits and _ . , = + - alone, or write "
            "{NAME: CHANGES, …} in place of a list of values"
        )


def _short_names(keys: list[str]) -> dict[str, str]:
    """The last words of each key, as many as tell it from the others."""
    words = {key: key.split(".") for key in keys}
    short = {}
    for key in keys:
        for count in range(1, len(words[key]) + 1):
            own = words[key][-count:]
            if sum(other[-count:] == own for other in words.values()) == 1:
                break
        short[key] = ".".join(own)
    return short


def _value_told(value: Any) -> str:
    """A value as part of a name: the last part of a path or a class path."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, list):
        return "+".join(_value_told(each) for each in value)
    if isinstance(value, Mapping):
        return _value_told(value.get("class_path", "?"))
    text = str(value).rpartition("/")[2].removesuffix(".yaml")
    return text.rpartition(".")[2] if CLASS_PATH.fullmatch(text) else text


class OnceLoader(yaml.SafeLoader):
    """Refuses a key that stands twice: YAML would take the last without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [str(key.value) for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                line = node.start_mark.line + 1
                raise ValueError(f"'{name}' stands twice in the mapping of line {line}; rename one")
        return super().construct_mapping(node, deep)
