"""Turn the names in a config into a sorted list of files, each with its identity."""

import functools
import glob
import hashlib
import os
import sysconfig
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4o_lit.tokenizer.load import nearest_name

PYTHON_STDLIB = "python-stdlib"
FORMATS = (".txt", ".md", ".py", ".jsonl", ".csv", ".tsv", ".parquet")
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
    """Of its bytes; the empty string until they are read."""

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
        stat = os.stat(self.path)
        return (stat.st_size, stat.st_mtime_ns) != (self.size, self.mtime_ns)


@functools.lru_cache(1 << 16)
def split_suffix(path: str) -> tuple[str, str]:
    """`a.jsonl.gz` -> (`.jsonl`, `.gz`)."""
    stem, suffix = os.path.splitext(path.lower())
    if suffix in COMPRESSIONS:
        return os.path.splitext(stem)[1], suffix
    return suffix, ""


def list_files(
    named: dict[str, list[str]],
    known: Iterable[dict[str, Any]] = (),
    formats: tuple[str, ...] = FORMATS,
) -> list[SourceFile]:
    """The files of all sources, in the order in which they are read.

    `named` maps a split to its sources. `known` are the entries of an earlier listing: of those
    files alone the digests are told, and only what was touched since is read for it. `formats` are
    the suffixes that a file may have. Raises where a source is missing or holds no such file.
    """
    before = {(entry["path"], entry["size"]): entry for entry in known if entry["digest"]}
    files: dict[str, SourceFile] = {}
    for split, sources in named.items():
        for source in sources:
            for name, path in _expand(source, formats):
                if path not in files:
                    files[path] = identified(name, path, split, before)
    return list(files.values())


def identified(
    name: str, path: str, split: str, before: dict[tuple[str, int], dict[str, Any]]
) -> SourceFile:
    """The file at `path`; `before` are entries that knew digests, by path and size."""
    stat = os.stat(path)
    known, digest = before.get((path, stat.st_size)), ""
    if known is not None:
        is_same = known["mtime_ns"] == stat.st_mtime_ns
        digest = known["digest"] if is_same else file_digest(path)
    return SourceFile(
        name=name, path=path, split=split, size=stat.st_size, mtime_ns=stat.st_mtime_ns,
        digest=digest,
    )  # fmt: skip


def entries(files: Iterable[SourceFile]) -> list[dict[str, Any]]:
    """The files as plain data for a manifest."""
    return [dict(vars(file)) for file in files]


def file_digest(path: str) -> str:
    """The digest of a file's bytes."""
    # hashlib.file_digest takes a third longer on many small files.
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:32]


def _expand(source: str, formats: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    endings = " ".join(formats)
    if source == PYTHON_STDLIB and ".py" in formats:
        yield from _python_stdlib()
        return
    place = Path(source).expanduser()
    if place.is_file():
        if split_suffix(source)[0] not in formats:
            raise ValueError(
                f"source {source} must end in one of {endings} (and .gz or .zst); rename it"
            )
        found = [str(place)]
    elif place.is_dir():
        found = [path for path in _walk(str(place)) if split_suffix(path)[0] in formats]
        if not found:
            raise ValueError(
                f"folder {source} holds no file that ends in {endings}; name another, or rename "
                "its files"
            )
    elif glob.has_magic(source):
        matches = glob.glob(str(place), recursive=True)
        found = [p for p in matches if split_suffix(p)[0] in formats and os.path.isfile(p)]
        if not found:
            mend = "; rename what it matches" if matches else nearest_name(place)
            raise FileNotFoundError(f"glob {source} matches no file that ends in {endings}{mend}")
    else:
        raise FileNotFoundError(f"source {source} does not exist{nearest_name(place)}")
    for path in sorted(found):
        yield path, os.path.abspath(path)


def _walk(folder: str, left_out: Collection[str] = ()) -> Iterator[str]:
    """Every file below the folder, but not below folders of the names left out."""
    for place, inside, files in os.walk(folder, followlinks=False):
        inside[:] = [name for name in inside if name not in left_out]
        yield from (os.path.join(place, name) for name in files)


def _python_stdlib() -> Iterator[tuple[str, str]]:
    root = sysconfig.get_path("stdlib")
    for path in sorted(path for path in _walk(root, LEFT_OUT) if path.endswith(".py")):
        inside = os.path.relpath(path, root).replace(os.sep, "/")
        if not inside.startswith("config-"):
            yield f"{PYTHON_STDLIB}/{inside}", path
