"""Turn the names in a config into a sorted list of files, each with its identity."""

import difflib
import glob
import hashlib
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PYTHON_STDLIB = "python-stdlib"
FORMATS = (".txt", ".md", ".py", ".jsonl", ".csv", ".parquet")
COMPRESSIONS = (".gz", ".zst")
# Their tests and bundled wheels would make the library three times as large, and less like code.
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file: where it is, which split it is for ("" = by fraction), and what it held."""

    name: str
    path: str
    split: str
    size: int
    mtime_ns: int
    digest: str

    @property
    def format(self) -> str:
        """The suffix that tells how to read it, without the one of its compression."""
        return split_suffix(self.path)[0]

    @property
    def compression(self) -> str:
        """`.gz`, `.zst` or the empty string."""
        return split_suffix(self.path)[1]

    def changed(self) -> bool:
        """Whether the file on disk is another than the one that was listed."""
        stat = Path(self.path).stat()
        return (stat.st_size, stat.st_mtime_ns) != (self.size, self.mtime_ns)


def split_suffix(path: str) -> tuple[str, str]:
    """`a.jsonl.gz` -> (`.jsonl`, `.gz`)."""
    plain = Path(path)
    packed = plain.suffix.lower() if plain.suffix.lower() in COMPRESSIONS else ""
    return (Path(plain.stem) if packed else plain).suffix.lower(), packed


def list_files(
    named: dict[str, list[str]], known: Iterable[dict[str, Any]] = ()
) -> list[SourceFile]:
    """The files of all sources, in the order in which they are read.

    `named` maps a split to its sources. `known` are the entries of an earlier listing: a file whose
    size and time are as before is not read again for its digest.
    """
    digests = {
        (entry["path"], entry["size"], entry["mtime_ns"]): entry["digest"] for entry in known
    }
    files: dict[str, SourceFile] = {}
    for split, sources in named.items():
        for source in sources:
            for name, path in _expand(source):
                if path not in files:
                    stat = Path(path).stat()
                    key = (path, stat.st_size, stat.st_mtime_ns)
                    files[path] = SourceFile(
                        name=name,
                        path=path,
                        split=split,
                        size=stat.st_size,
                        mtime_ns=stat.st_mtime_ns,
                        digest=digests.get(key) or _digest(path),
                    )
    return list(files.values())


def entries(files: Iterable[SourceFile]) -> list[dict[str, Any]]:
    """The files as plain data for a manifest."""
    return [asdict(file) for file in files]


def _digest(path: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _expand(source: str) -> Iterator[tuple[str, str]]:
    if source == PYTHON_STDLIB:
        yield from _python_stdlib()
        return
    place = Path(source).expanduser()
    if place.is_file():
        if split_suffix(source)[0] not in FORMATS:
            raise ValueError(
                f"source {source} must end in one of {' '.join(FORMATS)} (and .gz or .zst); "
                "rename it"
            )
        found = [place]
    elif place.is_dir():
        found = [file for file in place.rglob("*") if _readable(file)]
        if not found:
            raise ValueError(f"folder {source} holds no file that ends in {' '.join(FORMATS)}")
    elif glob.has_magic(source):
        matches = glob.glob(str(place), recursive=True)
        found = [Path(file) for file in matches if _readable(Path(file))]
        if not found:
            raise FileNotFoundError(
                f"glob {source} matches no file that ends in {' '.join(FORMATS)}"
            )
    else:
        raise FileNotFoundError(f"source {source} does not exist{nearest_name(place)}")
    for file in sorted(found, key=lambda file: file.as_posix()):
        yield file.as_posix(), str(file.resolve())


def _readable(file: Path) -> bool:
    return split_suffix(file.name)[0] in FORMATS and file.is_file()


def _python_stdlib() -> Iterator[tuple[str, str]]:
    root = Path(sysconfig.get_path("stdlib"))
    for file in sorted(root.rglob("*.py"), key=lambda file: file.as_posix()):
        inside = file.relative_to(root)
        if LEFT_OUT.isdisjoint(inside.parts) and not inside.parts[0].startswith("config-"):
            yield f"{PYTHON_STDLIB}/{inside.as_posix()}", str(file)


def nearest_name(path: Path) -> str:
    """`; did you mean X?` for a path that is missing, or the empty string."""
    while not path.parent.is_dir() and path.parent != path:
        path = path.parent
    names = [entry.name for entry in path.parent.iterdir()]
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""
