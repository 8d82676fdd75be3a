"""The packaged configs, found by name."""

from difflib import get_close_matches
from pathlib import Path

FOLDER = Path(__file__).parent
EXPERIMENTS, OVERLAYS, SIZES, RECIPES = "experiment", "with", "model", "compress"
GRIDS = "grid"


def names() -> list[str]:
    """Every packaged config as one says it: `quickstart`, `with/masked_lm`, `model/gpt2`."""
    paths = sorted(FOLDER.glob("*/*.yaml"))
    found = [path.relative_to(FOLDER).with_suffix("").as_posix() for path in paths]
    return [name.removeprefix(f"{EXPERIMENTS}/") for name in found]


def first_line(name: str) -> str:
    """The comment that a packaged config opens with."""
    with find(name).open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").rstrip()


def find(name: str) -> Path:
    """The path of a config: a file as given, else a packaged config by its name.

    Raises:
        FileNotFoundError: neither exists; the message names the nearest one.
    """
    given = Path(name)
    if given.is_file():
        return given
    bare = name.removeprefix("configs/").removesuffix(".yaml")
    places = (FOLDER / f"{bare}.yaml", FOLDER / EXPERIMENTS / f"{bare}.yaml", FOLDER / bare)
    for candidate in places:
        if candidate.is_file():
            return candidate
    siblings = [str(path) for path in given.parent.glob("*.yaml")] if given.parent.is_dir() else []
    near = get_close_matches(name, siblings + names(), 1, cutoff=0.4)
    mend = f"did you mean '{near[0]}'?" if near else "`gpt4o-lit configs` lists the packaged ones"
    raise FileNotFoundError(f"no config '{name}', neither a file nor a packaged name; {mend}")
