"""Build a corpus, or see that it stands: from text files to a tokenizer and shards of tokens."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock
from tqdm import tqdm

from gpt4o_lit.corpus.assign import Piece, assign
from gpt4o_lit.corpus.config import CorpusConfig
from gpt4o_lit.corpus.corpus import MANIFEST, SPLITS, Corpus
from gpt4o_lit.corpus.documents import Skips, read_documents
from gpt4o_lit.corpus.encode import Job, Part
from gpt4o_lit.corpus.pool import Pool
from gpt4o_lit.corpus.sample import sample_chunks
from gpt4o_lit.corpus.seen import Seen
from gpt4o_lit.corpus.shards import ShardInfo, shard_name, whole_shard, write_whole
from gpt4o_lit.corpus.sources import SourceFile, entries, list_files
from gpt4o_lit.tokenizer import Tokenizer, TokenizerRecipe, load_tokenizer

FORMAT = 1
SHARD_BYTES = 4 << 20
RECIPE = "recipe.json"


def prepare(
    config: CorpusConfig,
    recipe: TokenizerRecipe,
    directory: Path | str,
    *,
    num_workers: int | None = None,
    progress: bool = True,
) -> Corpus:
    """The corpus of this config in `directory`: opened when it stands, else built.

    Shards that a killed build finished are used again. Several processes may call this at once: one
    builds and the others wait.

    Raises:
        ValueError, OSError: a source cannot be read; file, line and mend are named.
    """
    folder = Path(directory)
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        manifest = _read_json(folder / MANIFEST)
        named = {"": config.sources, "valid": config.valid_sources, "test": config.test_sources}
        files = list_files(named, manifest.get("sources", ()))
        identity = _identity(config, recipe, files)
        changes = _changes(manifest, identity)
        if manifest and not changes:
            return Corpus.open(folder)
        (folder / MANIFEST).unlink(missing_ok=True)
        workers = (os.cpu_count() or 1) if num_workers is None else num_workers
        build = Build(config, recipe, folder, files, progress)
        built = build.run(identity, workers)
        return Corpus.open(folder, changes=changes, shards_built=built)


class Build:
    """One build of a corpus; `run` writes the manifest last, so what has one is whole."""

    def __init__(
        self,
        config: CorpusConfig,
        recipe: TokenizerRecipe,
        folder: Path,
        files: list[SourceFile],
        progress: bool,
    ) -> None:
        self.config, self.recipe, self.folder, self.files = config, recipe, folder, files
        self.progress = progress
        self.skips = Skips(config.on_error)
        self.duplicates = 0
        self.infos: dict[str, ShardInfo] = {}
        self.built = 0

    def run(self, identity: dict[str, Any], num_workers: int) -> int:
        """Build tokenizer and shards; returns how many shards were not there yet."""
        tokenizer = self._tokenizer(identity)
        stamp = json.dumps(
            [FORMAT, tokenizer.fingerprint, self.config.add_bos, self.config.add_eos]
        )
        names: dict[str, list[str]] = {split: [] for split in SPLITS}
        with Pool(self.folder / "tokenizer", num_workers, self._done) as pool:
            for split, parts in self._shards():
                name = shard_name(split, len(names[split]))
                names[split].append(name)
                job = self._job(name, parts, stamp)
                standing = whole_shard(Path(job.path), job.digest)
                if standing is not None:
                    self.infos[name] = standing
                else:
                    self.built += 1
                    pool.submit(job)
        if not names["train"]:
            raise ValueError(
                f"sources ({', '.join(self.config.sources)}) hold no training text; name others"
            )
        self._finish(identity, names)
        return self.built

    def _tokenizer(self, identity: dict[str, Any]) -> Tokenizer:
        """The trained tokenizer, used again while recipe and sampled text are the same."""
        home = self.folder / "tokenizer"
        wanted = {"recipe": self.recipe.identity(), "text": None}
        if self.recipe.sample_bytes:
            wanted["text"] = {"options": identity["options"], "sources": identity["sources"]}
        if _read_json(home / RECIPE) == json.loads(json.dumps(wanted)):
            return load_tokenizer(home)
        texts: list[str] = []
        if self.recipe.sample_bytes:
            training = ((digest, text) for digest, (split, text, _, _) in self._pieces("sample")
                        if split == "train")  # fmt: skip
            texts = sample_chunks(training, self.recipe.sample_bytes, self.recipe.seed)
            self.skips.counts.clear()
            self.duplicates = 0
        tokenizer = self.recipe.build(texts)
        home.mkdir(exist_ok=True)
        tokenizer.save(home)
        write_whole(home / RECIPE, json.dumps(wanted, indent=1).encode())
        return tokenizer

    def _pieces(self, title: str) -> Iterator[tuple[bytes, Piece]]:
        """Every piece of every new document, with the document's digest."""
        seen = Seen()
        total = sum(file.size for file in self.files)
        with tqdm(
            total=total, desc=title, unit="B", unit_scale=True, disable=not self.progress
        ) as bar:
            for file in self.files:
                for document in self._documents(file, bar.update):
                    if self.config.deduplicate and not seen.add(document.digest):
                        self.duplicates += 1
                        continue
                    for piece in assign(document, file.split, self.config):
                        yield document.digest, piece

    def _documents(self, file: SourceFile, advance: Callable[[int], Any]) -> Iterator[Any]:
        config = self.config
        return read_documents(file, config.documents, config.text_field, self.skips, advance)

    def _shards(self) -> Iterator[tuple[str, list[Part]]]:
        """Parts of about SHARD_BYTES per split; where a shard ends depends on the text alone."""
        parts: dict[str, list[Part]] = {split: [] for split in SPLITS}
        sizes = dict.fromkeys(SPLITS, 0)
        for _, (split, text, opens, closes) in self._pieces("tokenize"):
            parts[split].append(Part(text, opens, closes))
            sizes[split] += len(text)
            if sizes[split] >= SHARD_BYTES:
                yield split, parts[split]
                parts[split], sizes[split] = [], 0
        yield from ((split, rest) for split, rest in parts.items() if rest)

    def _job(self, name: str, parts: list[Part], stamp: str) -> Job:
        digest = hashlib.blake2b(stamp.encode(), digest_size=16)
        for part in parts:
            digest.update(b"%d %d %d " % (len(part.text), part.opens, part.closes))
            digest.update(part.text)
        return Job(
            path=str(self.folder / "shards" / name),
            digest=digest.hexdigest(),
            parts=parts,
            add_bos=self.config.add_bos,
            add_eos=self.config.add_eos,
        )

    def _done(self, job: Job, info: ShardInfo) -> None:
        self.infos[Path(job.path).name] = info

    def _finish(self, identity: dict[str, Any], names: dict[str, list[str]]) -> None:
        """Write the manifest and remove what no longer belongs to the corpus."""
        wanted = {name for split in SPLITS for name in names[split]}
        for path in (self.folder / "shards").iterdir():
            if path.name not in wanted:
                path.unlink()
        shards = {split: [self.infos[name].checksum for name in names[split]] for split in SPLITS}
        manifest = {
            "identity": identity,
            "sources": entries(self.files),
            "shards": shards,
            "duplicates": self.duplicates,
            "skips": dict(self.skips.counts),
        }
        write_whole(self.folder / MANIFEST, json.dumps(manifest, indent=1).encode())


def _identity(
    config: CorpusConfig, recipe: TokenizerRecipe, files: list[SourceFile]
) -> dict[str, Any]:
    """What a corpus is made from, as plain data."""
    sources = {file.path: [file.split, file.digest] for file in files}
    identity = {
        "format": FORMAT,
        "options": asdict(config),
        "tokenizer": recipe.identity(),
        "sources": sources,
    }
    return json.loads(json.dumps(identity))  # type: ignore[no-any-return]


def _changes(manifest: dict[str, Any], identity: dict[str, Any]) -> tuple[str, ...]:
    """What is no longer as the manifest says; empty for a new corpus too."""
    before = manifest.get("identity", {})
    return tuple(key for key in identity if before and before.get(key) != identity[key])


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
