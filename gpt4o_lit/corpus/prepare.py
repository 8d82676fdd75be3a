"""Build a corpus, or go on where a build was killed, or find that nothing is left to do."""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from gpt4o_lit.corpus.build import Builder, num_processes, shard_bytes
from gpt4o_lit.corpus.config import CorpusConfig
from gpt4o_lit.corpus.corpus import Corpus
from gpt4o_lit.corpus.documents import Skips, is_one_small_document
from gpt4o_lit.corpus.folder import (
    LOCK,
    MANIFEST,
    PLAN,
    SHARDS,
    TOKENIZER,
    check_folder,
    clear,
    clear_parts,
    read_json,
    write_json,
)
from gpt4o_lit.corpus.progress import progress_bar
from gpt4o_lit.corpus.route import Router
from gpt4o_lit.corpus.sample import sample_files
from gpt4o_lit.corpus.sources import SourceFile, entries, file_digest, list_files
from gpt4o_lit.tokenizer import TokenizerRecipe, load_tokenizer

FORMAT = 2
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
    same, bit by bit, for any number of workers (default: one more than cores, as far as they fit in
    memory; 0: none but the caller). Its `identity` tells it from any other.
    """
    folder = Path(directory)
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        old = read_json(folder / PLAN)
        files = _files(config, old["sources"] if old else [])
        plan = _plan(config, tokenizer, files)
        changes = differences(old, plan) if old else ["nothing was prepared yet"]
        if old and not changes:
            if old["sources"] != plan["sources"]:  # touched, and equal: not to be read next time
                write_json(folder / PLAN, {**old, "sources": plan["sources"]})
            try:
                return Corpus.open(folder)
            except (OSError, ValueError) as error:
                changes = [str(error)]
        else:
            clear(folder)
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
    (folder / MANIFEST).unlink(missing_ok=True)
    (folder / SHARDS).mkdir(exist_ok=True)
    clear_parts(folder)
    fingerprint = _fingerprint(folder)
    if not fingerprint:
        _build_tokenizer(folder, config, tokenizer, files, progress)
        fingerprint = load_tokenizer(folder / TOKENIZER).fingerprint
        write_json(folder / PLAN, {**plan, "fingerprint": fingerprint})
    total = sum(file.size for file in files)
    if num_workers is None:
        num_workers = 0 if total < SMALL else num_processes()
    router = Router(config, files, Skips(config.on_error))
    builder = Builder(folder / SHARDS, config, fingerprint, shard_bytes(total))
    with (
        progress_bar(total, "tokenizing", progress) as bar,
        _digests_beside(files, config) as beside,
    ):
        builder.run(router.pieces(bar.update), num_workers)
        files = [_with_digest(file, router.digests, beside) for file in files]
    plan = {**plan, "sources": entries(files), "fingerprint": fingerprint}
    counts = builder.counts()
    _check_splits(config, counts)
    manifest = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "splits": counts,
        "duplicates": router.num_duplicates,
        "skips": dict(sorted(router.skips.counts.items())),
        "shards": builder.checksums(),
        **{key: plan[key] for key in ("config", "tokenizer")},
    }
    write_json(folder / MANIFEST, manifest)
    write_json(folder / PLAN, plan)
    return Corpus.open(folder, changes, builder.num_built)


@contextmanager
def _digests_beside(
    files: list[SourceFile], config: CorpusConfig
) -> Iterator[dict[str, Future[str]]]:
    """Digests that a thread makes while the files are read; small ones tell theirs by the way."""
    thread = ThreadPoolExecutor(1)
    try:
        yield {
            file.path: thread.submit(file_digest, file.path)
            for file in files
            if not file.digest and not is_one_small_document(file, config.documents)
        }
    finally:
        thread.shutdown(cancel_futures=True)


def _with_digest(
    file: SourceFile, seen: dict[str, str], beside: dict[str, Future[str]]
) -> SourceFile:
    if file.digest:
        return file
    waited = beside[file.path].result() if file.path in beside else None
    digest = waited or seen.get(file.path) or file_digest(file.path)
    return replace(file, digest=digest)


def _fingerprint(folder: Path) -> str:
    """That of the tokenizer, where it is the one that the plan names; else the empty string."""
    planned = (read_json(folder / PLAN) or {}).get("fingerprint", "")
    try:
        found = load_tokenizer(folder / TOKENIZER).fingerprint
    except (OSError, ValueError):
        return ""
    return found if found == planned else ""


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
    tokenizer.build(texts).save(folder / TOKENIZER)


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
        elif _differs(before[path], entry):
            yield f"source {entry['name']} changed"
    for path, entry in before.items():
        if path not in now:
            yield f"source {entry['name']} is gone"
    if before.keys() == now.keys() and list(before) != list(now):
        yield "the order of the sources changed"


def _differs(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether a file changed; of one that was never read to its end its time must tell."""
    told = ("digest", "size", "split") if old["digest"] else ("mtime_ns", "size", "split")
    return any(old[key] != new[key] for key in told)


def _files(config: CorpusConfig, known: list[dict[str, Any]]) -> list[SourceFile]:
    named = {"test": config.test_sources, "valid": config.valid_sources, "": config.sources}
    return list_files(named, known)


def _plan(
    config: CorpusConfig, tokenizer: TokenizerRecipe, files: list[SourceFile]
) -> dict[str, Any]:
    plan = {"format": FORMAT, "config": asdict(config), "tokenizer": tokenizer.identity()}
    # What is compared with a plan out of a file must have gone through a file's types.
    return {**json.loads(json.dumps(plan)), "sources": entries(files)}


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
