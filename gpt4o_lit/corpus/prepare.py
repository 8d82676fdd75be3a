"""Build a corpus, or go on where a build was killed, or find that nothing is left to do."""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from gpt4o_lit.corpus.build import Builder, num_cores, shard_bytes
from gpt4o_lit.corpus.config import CorpusConfig
from gpt4o_lit.corpus.corpus import MANIFEST, Corpus
from gpt4o_lit.corpus.documents import Skips
from gpt4o_lit.corpus.progress import progress_bar
from gpt4o_lit.corpus.route import Router
from gpt4o_lit.corpus.sample import sample_files
from gpt4o_lit.corpus.shards import write_whole
from gpt4o_lit.corpus.sources import SourceFile, entries, list_files
from gpt4o_lit.tokenizer import TokenizerRecipe, load_tokenizer

PLAN = "plan.json"
FORMAT = 1
# Below this, starting worker processes takes longer than the work.
SMALL = 1 << 20


def prepare(
    config: CorpusConfig,
    tokenizer: TokenizerRecipe,
    directory: Path | str,
    *,
    num_workers: int | None = None,
    progress: bool = False,
) -> Corpus:
    """The corpus in `directory`, built where it is missing, incomplete, or of something else.

    Any number of processes may call this at once: one builds and the others wait. The result is the
    same, bit by bit, for any number of workers (default: one per core; 0: none but the caller).
    """
    folder = Path(directory)
    _check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        old = _read(folder / PLAN)
        files = _files(config, old["sources"] if old else [])
        plan = _plan(config, tokenizer, files)
        changes = differences(old, plan) if old else ["nothing was prepared yet"]
        if not changes:
            try:
                return Corpus.open(folder)
            except (OSError, ValueError) as error:
                changes = [str(error)]
        elif old or (folder / "shards").exists():
            _clear(folder)
        if progress:
            print(f"preparing {folder}: {'; '.join(changes)}", file=sys.stderr)
        return _build(folder, config, tokenizer, files, plan, tuple(changes), num_workers, progress)


def _build(
    folder: Path,
    config: CorpusConfig,
    tokenizer: TokenizerRecipe,
    files: list[SourceFile],
    plan: dict[str, Any],
    changes: tuple[str, ...],
    num_workers: int | None,
    progress: bool,
) -> Corpus:
    (folder / "shards").mkdir(exist_ok=True)
    for left_over in (folder / "shards").glob("*.part"):
        left_over.unlink()
    if not (folder / PLAN).is_file():
        _build_tokenizer(folder, config, tokenizer, files, progress)
        _write(folder / PLAN, plan)
    fingerprint = load_tokenizer(folder / "tokenizer").fingerprint
    total = sum(file.size for file in files)
    if num_workers is None:
        num_workers = 0 if total < SMALL else num_cores()
    router = Router(config, files, Skips(config.on_error))
    builder = Builder(folder / "shards", config, fingerprint, shard_bytes(total))
    with progress_bar(total, "tokenizing", progress) as bar:
        builder.run(router.pieces(bar.update), num_workers)
    counts = builder.counts()
    _check_splits(config, counts)
    manifest = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "splits": counts,
        "duplicates": router.num_duplicates,
        "skips": dict(sorted(router.skips.counts.items())),
        "shards": builder.checksums(),
        **{key: plan[key] for key in ("config", "tokenizer", "sources")},
    }
    _write(folder / MANIFEST, manifest)
    return Corpus.open(folder, changes, builder.num_built)


def _build_tokenizer(
    folder: Path,
    config: CorpusConfig,
    tokenizer: TokenizerRecipe,
    files: list[SourceFile],
    progress: bool,
) -> None:
    texts: list[str] = []
    if tokenizer.sample_bytes:
        texts = sample_files(config, files, tokenizer.sample_bytes, tokenizer.seed, progress)
    tokenizer.build(texts).save(folder / "tokenizer")


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What changed between two plans, each in a few words; empty if they give the same corpus."""
    found = [] if old["format"] == new["format"] else ["the format of the files changed"]
    if old["tokenizer"]["recipe"] != new["tokenizer"]["recipe"]:
        before, now = old["tokenizer"]["recipe"], new["tokenizer"]["recipe"]
        found.append(f"tokenizer {before} -> {now}")
        new = {**new, "tokenizer": old["tokenizer"]}
    for part in ("config", "tokenizer"):
        for key in sorted(old[part].keys() | new[part].keys()):
            before, now = old[part].get(key), new[part].get(key)
            if before != now:
                found.append(f"{part}.{key} {before!r} -> {now!r}")
    return found + list(_changed_sources(old["sources"], new["sources"]))


def _changed_sources(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Iterator[str]:
    before = {entry["path"]: entry for entry in old}
    now = {entry["path"]: entry for entry in new}
    for path, entry in now.items():
        if path not in before:
            yield f"source {entry['name']} is new"
        elif any(before[path][key] != entry[key] for key in ("digest", "size", "split")):
            yield f"source {entry['name']} changed"
    for path, entry in before.items():
        if path not in now:
            yield f"source {entry['name']} is gone"
    if before.keys() == now.keys() and list(before) != list(now):
        yield "the order of the sources changed"


def _files(config: CorpusConfig, known: list[dict[str, Any]]) -> list[SourceFile]:
    named = {"test": config.test_sources, "valid": config.valid_sources, "": config.sources}
    return list_files(named, known)


def _plan(
    config: CorpusConfig, tokenizer: TokenizerRecipe, files: list[SourceFile]
) -> dict[str, Any]:
    plan = {
        "format": FORMAT,
        "config": asdict(config),
        "tokenizer": tokenizer.identity(),
        "sources": entries(files),
    }
    # What is compared with a plan out of a file must have gone through a file's types.
    return dict(json.loads(json.dumps(plan)))


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        raise ValueError(f"directory {folder} is a file; give a folder")
    ours = (PLAN, MANIFEST, ".lock")
    if folder.is_dir() and any(folder.iterdir()) and not any((folder / n).exists() for n in ours):
        raise ValueError(f"directory {folder} holds other files; give a new or an empty folder")


def _check_splits(config: CorpusConfig, counts: dict[str, dict[str, int]]) -> None:
    wanted = {
        "train": True,
        "valid": config.valid_share > 0 or bool(config.valid_sources),
        "test": config.test_share > 0 or bool(config.test_sources),
    }
    total = sum(count["documents"] for count in counts.values())
    for split, is_wanted in wanted.items():
        if is_wanted and not counts[split]["tokens"]:
            raise ValueError(
                f"split {split} would be empty ({total} documents in all); give more documents, "
                "set split to position, or change the fractions"
            )


def _clear(folder: Path) -> None:
    """Take away an old corpus; the manifest goes first, so nobody opens what is half gone."""
    for name in (MANIFEST, PLAN):
        (folder / name).unlink(missing_ok=True)
    for name in ("shards", "tokenizer"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return None


def _write(path: Path, content: dict[str, Any]) -> None:
    """JSON with a line for each key: readable, and much faster than indent=1 on many sources."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
    write_whole(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())
