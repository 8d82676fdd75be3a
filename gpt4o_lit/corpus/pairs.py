"""Pairs of texts: prepared once into memory-mapped tokens, as a corpus is."""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from gpt4o_lit.corpus.documents import Skips, digest_of
from gpt4o_lit.corpus.folder import LOCK, TOKENIZER, read_json, write_json
from gpt4o_lit.corpus.rows import Row, Source, files_of, read_rows
from gpt4o_lit.corpus.shards import Shard, write_shard, write_whole
from gpt4o_lit.corpus.sources import file_digest
from gpt4o_lit.corpus.template import Template, value_of
from gpt4o_lit.tokenizer import Tokenizer, TokenizerRecipe, load_tokenizer

FORMAT = 1
MANIFEST = "pairs.json"
SPLITS = ("train", "valid", "test")
SIDES = ("source", "target")
OWN = {MANIFEST, LOCK, TOKENIZER} | {f"{s}-{side}.bin" for s in SPLITS for side in SIDES}
OWN |= {f"{split}.jsonl" for split in SPLITS}
BATCH = 4096
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """Where pairs come from, what is source and target, and how long they may be."""

    train: Source
    """A file, folder or glob of .tsv .csv .jsonl .json .parquet, each also .gz or .zst, or what
    `datasets` saved; several of them; or {column: file} of files whose lines belong together."""
    valid: Source | None = None
    """The same for validation. Default: valid_fraction of train."""
    test: Source | None = None
    """The same for testing. Default: test_fraction of train."""
    columns: list[str] | None = None
    """Names of the columns of a .tsv or .csv that has no header line."""
    source: str = "{source}"
    """What is read: text with columns in braces, such as "translate Chinese to English: {zh}"."""
    target: str = "{target}"
    """What is said."""
    references: list[str] | None = None
    """All that counts as right where outputs are scored; of a column that holds a list, each.
    Those whose columns a row lacks are left out. Default: target."""
    max_source_len: int = 256
    """Most pieces of a source, its end included."""
    max_target_len: int = 256
    """Most pieces of a target, its end included."""
    too_long: Literal["raise", "skip", "truncate"] = "skip"
    """What to do with longer ones: stop and name it, leave it out and count it, or cut its end."""
    on_error: Literal["raise", "skip"] = "raise"
    """What to do with rows that cannot be read or are empty: stop and name the first, or leave
    them out and count them."""
    valid_fraction: float = 0.05
    """Share of train that is for validation where valid is not given, by digest of the source."""
    test_fraction: float = 0.0
    """The same for testing."""

    def __post_init__(self) -> None:
        for name in ("max_source_len", "max_target_len"):
            if getattr(self, name) < 2:
                raise ValueError(
                    f"{name} ({getattr(self, name)}) must be at least 2: a piece and the end"
                )
        for name in ("valid_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be in 0..1; set it to 0.05")
        for template in (self.source, self.target, *(self.references or [])):
            if not Template(template).columns:
                raise ValueError(
                    f"the template {template!r} names no column; write one in braces: {{zh}}"
                )

    @property
    def sources(self) -> dict[str, Source]:
        """What is given for each split."""
        given = {"train": self.train, "valid": self.valid, "test": self.test}
        return {split: source for split, source in given.items() if source is not None}


@dataclass(frozen=True)
class Pair:
    """A source, and what counts as an answer to it; the first is the target."""

    source: str
    references: list[str]
    place: str
    """Its file and line."""


class PairSplit:
    """The pairs of one split as tokens, without ends."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._sides = [Shard(folder / f"{name}-{side}.bin") for side in SIDES]
        starts = [np.append(side.starts, side.info.num_tokens) for side in self._sides]
        self._starts = starts
        self.lengths = np.stack([np.diff(each) for each in starts], axis=1)
        """int64 (N, 2): pieces of source and target."""

    def __len__(self) -> int:
        return len(self.lengths)

    def pair(self, index: int) -> tuple[Array, Array]:
        """The pieces of a source and of its target."""
        source, target = (
            side.tokens[starts[index] : starts[index + 1]]
            for side, starts in zip(self._sides, self._starts, strict=True)
        )
        return source, target


class Pairs:
    """What `prepare_pairs` left in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        manifest = read_json(folder / MANIFEST)
        if manifest is None:
            raise FileNotFoundError(f"{folder} holds no pairs; prepare them first")
        self.identity: str = manifest["identity"]
        self.counts: dict[str, dict[str, int]] = manifest["splits"]
        """For each split its pairs and pieces, and what was left out by kind."""
        self.tokenizer: Tokenizer = load_tokenizer(folder / TOKENIZER)

    def split(self, name: str) -> PairSplit:
        """The tokens of train, valid or test.

        Raises:
            ValueError: there is no such split, or nothing is in it.
        """
        if not self.counts.get(name, {}).get("pairs"):
            raise ValueError(
                f"split {name} is empty; give pairs.{name}, or raise pairs.{name}_fraction"
            )
        return PairSplit(self.folder, name)

    def texts(self, name: str) -> list[Pair]:
        """Source and references of valid or test, in the order of the split."""
        lines = (self.folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        return [Pair(**json.loads(line)) for line in lines]


def prepare_pairs(
    config: PairsConfig,
    tokenizer: TokenizerRecipe,
    directory: Path | str,
    *,
    progress: bool = False,
) -> Pairs:
    """The pairs in `directory`, made anew where they are missing or of something else.

    Any number of processes may call this at once: one works and the others wait.

    Raises:
        ValueError: the folder holds other files, or a row is faulty and on_error is raise.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    foreign = sorted({path.name for path in folder.iterdir() if not _is_own(path.name)})
    if foreign:
        raise ValueError(
            f"directory {folder} holds other files than those of pairs ({foreign[0]}); give a new "
            "or an empty folder"
        )
    with FileLock(folder / LOCK):
        identity = _identity(config, tokenizer)
        if (read_json(folder / MANIFEST) or {}).get("identity") != identity:
            (folder / MANIFEST).unlink(missing_ok=True)
            _Builder(folder, config, identity, progress).build(tokenizer)
        return Pairs(folder)


def _renderings(template: Template, values: Mapping[str, Any]) -> Iterator[str]:
    """The text of a row; where a column holds a list, one for each of its items."""
    for name in template.columns:
        items = value_of(values, name)
        if isinstance(items, list):
            for item in items:
                yield from _renderings(template, {**values, name: item})
            return
    yield template.render(values)


def _fits(template: Template, values: Mapping[str, Any]) -> bool:
    """Whether a row has all columns that a template names."""
    try:
        return all(value_of(values, name) is not None for name in template.columns)
    except ValueError:
        return False


def _is_own(name: str) -> bool:
    return name in OWN or (name.endswith(".part") and name.rsplit(".", 2)[0] in OWN)


def _identity(config: PairsConfig, tokenizer: TokenizerRecipe) -> str:
    files = {
        split: [[str(path), file_digest(str(path))] for path in files_of(source)]
        for split, source in config.sources.items()
    }
    made_of = [FORMAT, asdict(config), tokenizer.identity(), files]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:32]


class _Builder:
    """Reads, renders and encodes all splits."""

    def __init__(self, folder: Path, config: PairsConfig, identity: str, progress: bool) -> None:
        self.folder, self.config, self.identity, self.progress = folder, config, identity, progress
        self.templates = {side: Template(getattr(config, side)) for side in SIDES}
        references = [config.target] if config.references is None else config.references
        self.references = [Template(text) for text in references]
        self._noted: set[str] = set()

    def build(self, recipe: TokenizerRecipe) -> None:
        """Write the tokenizer, the shards, the texts, and last of all the manifest."""
        texts = self._sample(recipe) if recipe.sample_bytes else []
        recipe.build(texts).save(self.folder / TOKENIZER)
        tokenizer = load_tokenizer(self.folder / TOKENIZER)
        counts = {split: self._write(split, tokenizer) for split in SPLITS}
        if not counts["train"]["pairs"]:
            raise ValueError(
                f"no pair is left to train on ({counts['train']}); give more, or mend what was "
                "left out"
            )
        write_json(
            self.folder / MANIFEST,
            {"format": FORMAT, "identity": self.identity, "splits": counts},
        )

    def pairs(self, split: str, skips: Skips) -> Iterator[Pair]:
        """The pairs of a split; what cannot be read or is empty goes to skips."""
        own = self.config.sources.get(split)
        if own is None and not getattr(self.config, f"{split}_fraction"):
            return
        source = self.config.train if own is None else own
        for row in read_rows(source, self.config.columns, skips, note=self._note):
            pair = self._pair(row, split, skips)
            if pair is not None and (own is None or split == "train"):
                pair = pair if self._share_of(pair.source) == split else None
            if pair is not None:
                yield pair

    def _pair(self, row: Row, split: str, skips: Skips) -> Pair | None:
        try:
            source = self.templates["source"].render(row.values)
            references = self._references(row.values, split)
        except ValueError as error:
            skips.handle("unfit row", f"{row.place}: {error}")
            return None
        for side, text in (("source", source), ("target", " ".join(references))):
            if not text.strip():
                skips.handle(
                    f"empty {side}", f"{row.place}: its {side} is empty; fill it, or delete the row"
                )
                return None
        return Pair(source, references, row.place)

    def _references(self, values: Mapping[str, Any], split: str) -> list[str]:
        """The target in train; else all that is right, of those whose columns there are."""
        if split == "train":
            return [self.templates["target"].render(values)]
        there = [each for each in self.references if _fits(each, values)]
        texts = [text for each in there or self.references for text in _renderings(each, values)]
        return [text for text in texts if text.strip()]

    def _note(self, kind: str, message: str) -> None:
        """Say once what was read otherwise than its name promises."""
        if self.progress and message not in self._noted:
            self._noted.add(message)
            tqdm.write(message, file=sys.stderr)

    def _share_of(self, source: str) -> str:
        """The split of a pair of train: equal sources go to the same."""
        place = int.from_bytes(digest_of(source.encode())[:8]) / 2**64
        for split in ("test", "valid"):
            if split not in self.config.sources:
                place -= getattr(self.config, f"{split}_fraction")
                if place < 0:
                    return split
        return "train"

    def _sample(self, recipe: TokenizerRecipe) -> list[str]:
        """Texts of the training pairs, as many as the tokenizer wants, evenly from all of them."""
        draw = np.random.default_rng(recipe.seed).random
        kept: list[tuple[float, str]] = []
        size, limit = 0, 1.0
        for pair in self._shown(self.pairs("train", Skips("skip")), "sampling"):
            chance = float(draw())
            if chance >= limit:
                continue
            kept += [(chance, pair.source), (chance, pair.references[0])]
            size += sum(len(text.encode()) for _, text in kept[-2:])
            if size > 2 * recipe.sample_bytes:
                limit /= 2
                kept = [each for each in kept if each[0] < limit]
                size = sum(len(text.encode()) for _, text in kept)
        texts: list[str] = []
        size = 0
        for _, text in sorted(kept, key=lambda each: each[0]):
            size += len(text.encode())
            if texts and size > recipe.sample_bytes:
                break
            texts.append(text)
        return texts

    def _shown(self, pairs: Iterator[Pair], what: str) -> Iterator[Pair]:
        return tqdm(
            pairs, desc=what, unit=" pairs", unit_scale=True, disable=not self.progress, leave=False
        )

    def _write(self, split: str, tokenizer: Tokenizer) -> dict[str, int]:
        skips = Skips(self.config.on_error)
        dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
        sides: tuple[list[Array], list[Array]] = ([np.empty(0, dtype)], [np.empty(0, dtype)])
        lengths: list[list[int]] = [[], []]
        lines: list[str] = []
        num_bytes = [0, 0]
        pairs = iter(self._shown(self.pairs(split, skips), f"tokenizing {split}"))
        while batch := list(islice(pairs, BATCH)):
            texts = [pair.source for pair in batch], [pair.references[0] for pair in batch]
            encoded = [tokenizer.encode_batch(side) for side in texts]
            rows: tuple[list[int], list[int]] = ([], [])
            for pair, *ids in zip(batch, *encoded, strict=True):
                kept = self._cut(pair, ids, skips)
                if kept is None:
                    continue
                for side, row in enumerate(kept):
                    rows[side].extend(row)
                    lengths[side].append(len(row))
                num_bytes[0] += len(pair.source.encode())
                num_bytes[1] += len(pair.references[0].encode())
                if split != "train":
                    lines.append(json.dumps(vars(pair), ensure_ascii=False) + "\n")
            for parts, flat in zip(sides, rows, strict=True):
                parts.append(np.array(flat, dtype))
        for name, parts, counts, size in zip(SIDES, sides, lengths, num_bytes, strict=True):
            starts = np.cumsum([0, *counts])[:-1]
            path = self.folder / f"{split}-{name}.bin"
            write_shard(path, self.identity, parts, starts, size)
        if split != "train":
            write_whole(self.folder / f"{split}.jsonl", "".join(lines).encode())
        pieces = {
            f"{name} pieces": sum(counts) for name, counts in zip(SIDES, lengths, strict=True)
        }
        return {"pairs": len(lengths[0]), **pieces, **dict(sorted(skips.counts.items()))}

    def _cut(self, pair: Pair, ids: list[list[int]], skips: Skips) -> list[list[int]] | None:
        """The pieces of both sides, if they are short enough or may be cut."""
        cut = []
        for side, row in zip(SIDES, ids, strict=True):
            most = getattr(self.config, f"max_{side}_len") - 1  # and the end
            if len(row) > most:
                if self.config.too_long == "raise":
                    raise ValueError(
                        f"{pair.place}: its {side} has {len(row)} pieces, more than "
                        f"max_{side}_len ({most + 1}) leaves room for; raise it, or set too_long "
                        "to skip or truncate"
                    )
                skips.counts[f"{side} too long"] += 1
                if self.config.too_long == "skip":
                    return None
            cut.append(row[:most])
        return cut
