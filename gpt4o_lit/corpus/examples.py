"""Examples of two sides out of tables: prepared once into memory-mapped numbers, as a corpus is."""

import hashlib
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from filelock import FileLock

from gpt4o_lit.corpus.documents import Skips, digest_of
from gpt4o_lit.corpus.folder import LOCK, TOKENIZER, read_json, write_json
from gpt4o_lit.corpus.rows import Row, Source, files_of, read_rows
from gpt4o_lit.corpus.shards import Shard, write_shard, write_whole
from gpt4o_lit.corpus.sources import file_digest
from gpt4o_lit.tokenizer import Tokenizer, TokenizerRecipe, load_tokenizer

FORMAT = 2
MANIFEST = "examples.json"
SPLITS = ("train", "valid", "test")
SIDES = ("source", "target")
OWN = {MANIFEST, LOCK, TOKENIZER} | {f"{s}-{side}.bin" for s in SPLITS for side in SIDES}
OWN |= {f"{split}.jsonl" for split in SPLITS}
BATCH = 4096
Array = np.ndarray[Any, Any]
TooLong = Literal["raise", "skip", "truncate"]
Encoded = tuple[list[int], list[int]]
"""Source and target in numbers."""


@dataclass(frozen=True, kw_only=True)
class TablesConfig:
    """Where rows come from, and what becomes of those that do not serve.

    A dataclass and nothing else: jsonargparse reads and writes the fields of an abstract class
    under `init_args`, those of a plain one by their names.
    """

    train: Source
    """A file, folder or glob of .tsv .csv .jsonl .json .parquet, each also .gz or .zst, or what
    `datasets` saved; several of them; or {column: file} of files whose lines belong together."""
    valid: Source | None = None
    """The same for validation. Default: valid_fraction of train."""
    test: Source | None = None
    """The same for testing. Default: test_fraction of train."""
    columns: list[str] | None = None
    """Names of the columns of a .tsv or .csv that has no header line."""
    too_long: TooLong = "skip"
    """What to do with longer texts: stop and name it, leave it out and count it, or cut its end."""
    on_error: Literal["raise", "skip"] = "raise"
    """What to do with rows that cannot be read or are empty: stop and name the first, or leave
    them out and count them."""
    valid_fraction: float = 0.05
    """Share of train that is for validation where valid is not given, by digest of the source."""
    test_fraction: float = 0.0
    """The same for testing."""

    def __post_init__(self) -> None:
        for name in ("valid_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be in 0..1; set it to 0.05")

    @property
    def sources(self) -> dict[str, Source]:
        """What is given for each split."""
        given = {"train": self.train, "valid": self.valid, "test": self.test}
        return {split: source for split, source in given.items() if source is not None}

    @property
    def longest(self) -> int:
        """Most pieces that a batch must have room for: those of one example."""
        raise NotImplementedError(f"{type(self).__name__} must tell its longest example")

    def split_of(self, key: str) -> str:
        """Where a row of train goes: equal keys go to the same split."""
        place = int.from_bytes(digest_of(key.encode())[:8]) / 2**64
        for split in ("test", "valid"):
            if split not in self.sources:
                place -= getattr(self, f"{split}_fraction")
                if place < 0:
                    return split
        return "train"


class ExampleSplit:
    """The examples of one split: the pieces of each source, and the numbers that it is given."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._sides = [Shard(folder / f"{name}-{side}.bin") for side in SIDES]
        self._starts = [np.append(side.starts, side.info.num_tokens) for side in self._sides]
        self.lengths = np.stack([np.diff(each) for each in self._starts], axis=1)
        """int64 (N, 2): numbers of source and target."""

    def __len__(self) -> int:
        return len(self.lengths)

    def pair(self, index: int) -> tuple[Array, Array]:
        """Source and target of an example."""
        source, target = (
            side.tokens[starts[index] : starts[index + 1]]
            for side, starts in zip(self._sides, self._starts, strict=True)
        )
        return source, target


class Examples:
    """What an `ExampleBuilder` left in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        manifest = read_json(folder / MANIFEST)
        if manifest is None:
            raise FileNotFoundError(f"{folder} holds no examples; prepare them first")
        self.identity: str = manifest["identity"]
        """Equal identities: the same numbers in the same order."""
        self.counts: dict[str, dict[str, int]] = manifest["splits"]
        """For each split its examples and pieces, and what was left out by kind."""
        self.told: dict[str, Any] = manifest["told"]
        """What the builder found out about all of them."""
        self.tokenizer: Tokenizer = load_tokenizer(folder / TOKENIZER)

    def split(self, name: str) -> ExampleSplit:
        """The numbers of train, valid or test.

        Raises:
            ValueError: there is no such split, or nothing is in it.
        """
        if not self.counts.get(name, {}).get("examples"):
            raise ValueError(
                f"split {name} is empty; give data's {name}, or raise its {name}_fraction"
            )
        return ExampleSplit(self.folder, name)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The examples of valid or test as they were read, in the order of the split; `parts` of
        each is how many of the split are of it."""
        lines = (self.folder / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line]


@dataclass(frozen=True)
class Example:
    """One example before it is encoded; what it is made of is plain data."""

    source: Any
    target: Any
    place: str
    """Its file and line."""


class ExampleBuilder(ABC):
    """Reads rows, makes examples of them and encodes these; a subclass says how."""

    what: ClassVar[str]
    """What examples are called."""

    def __init__(self, config: Any, progress: bool) -> None:
        self.config, self.progress = config, progress
        self._noted: set[str] = set()

    @abstractmethod
    def example(self, row: Row, split: str) -> Example:
        """What a row says; ValueError where it does not serve."""

    @abstractmethod
    def key(self, example: Example) -> str:
        """What decides the split of an example of train."""

    @abstractmethod
    def texts(self, example: Example) -> list[str]:
        """What a tokenizer may learn from."""

    @abstractmethod
    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[list[Encoded]]:
        """Source and target of each in numbers; of a long one there may be several parts."""

    @abstractmethod
    def limits(self) -> tuple[int, int | None]:
        """Most numbers of a source and of a target; None: as many as there are."""

    def look(self) -> dict[str, Any]:
        """What must be known of all training examples before any is encoded."""
        return {}

    def prepare(self, recipe: TokenizerRecipe, directory: Path | str) -> Examples:
        """The examples in `directory`, made anew where they are missing or of something else.

        Any number of processes may call this at once: one works and the others wait.

        Raises:
            ValueError: the folder holds other files, or a row is faulty and on_error is raise.
        """
        for source in self.config.sources.values():
            files_of(source)  # what is missing is told before anything is made
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        foreign = sorted({path.name for path in folder.iterdir() if not _is_own(path.name)})
        if foreign:
            raise ValueError(
                f"directory {folder} holds other files than those of {self.what} ({foreign[0]}); "
                "give a new or an empty folder"
            )
        with FileLock(folder / LOCK):
            identity = self._identity(recipe)
            if (read_json(folder / MANIFEST) or {}).get("identity") != identity:
                (folder / MANIFEST).unlink(missing_ok=True)
                self._build(folder, recipe, identity)
            return Examples(folder)

    def examples(self, split: str, skips: Skips) -> Iterator[Example]:
        """The examples of a split; what cannot be read or does not serve goes to skips."""
        own = self.config.sources.get(split)
        if own is None and not getattr(self.config, f"{split}_fraction"):
            return
        source = self.config.train if own is None else own
        for row in read_rows(source, self.config.columns, skips, note=self._note):
            try:
                example = self.example(row, split)
            except ValueError as error:
                skips.handle("unfit row", f"{row.place}: {error}")
                continue
            elsewhere = own is None or split == "train"
            if not elsewhere or self.config.split_of(self.key(example)) == split:
                yield example

    def _identity(self, recipe: TokenizerRecipe) -> str:
        files = {
            split: [[str(path), file_digest(str(path))] for path in files_of(source)]
            for split, source in self.config.sources.items()
        }
        made_of = [FORMAT, self.what, asdict(self.config), recipe.identity(), files]
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:32]

    def _build(self, folder: Path, recipe: TokenizerRecipe, identity: str) -> None:
        """Write the tokenizer, the shards, the texts, and last of all the manifest."""
        told = self.look()
        recipe.build(self._sample(recipe) if recipe.sample_bytes else []).save(folder / TOKENIZER)
        tokenizer = load_tokenizer(folder / TOKENIZER)
        counts = {split: self._write(folder, split, tokenizer, identity) for split in SPLITS}
        if not counts["train"]["examples"]:
            raise ValueError(
                f"no {self.what} are left to train on ({counts['train']}); give more, or mend what "
                "was left out"
            )
        manifest = {"format": FORMAT, "identity": identity, "splits": counts, "told": told}
        write_json(folder / MANIFEST, manifest)

    def _sample(self, recipe: TokenizerRecipe) -> list[str]:
        """Texts of training examples, as many as the tokenizer wants, evenly from all of them."""
        draw = np.random.default_rng(recipe.seed).random
        kept: list[tuple[float, str]] = []
        size, limit = 0, 1.0
        for example in self._shown(self.examples("train", Skips("skip")), "sampling"):
            chance = float(draw())
            if chance >= limit:
                continue
            texts = self.texts(example)
            kept += [(chance, text) for text in texts]
            size += sum(len(text.encode()) for text in texts)
            if size > 2 * recipe.sample_bytes:
                limit /= 2
                kept = [each for each in kept if each[0] < limit]
                size = sum(len(text.encode()) for _, text in kept)
        sample: list[str] = []
        size = 0
        for _, text in sorted(kept, key=lambda each: each[0]):
            size += len(text.encode())
            if sample and size > recipe.sample_bytes:
                break
            sample.append(text)
        return sample

    def _write(
        self, folder: Path, split: str, tokenizer: Tokenizer, identity: str
    ) -> dict[str, int]:
        skips = Skips(self.config.on_error)
        dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
        sides: tuple[list[Array], list[Array]] = ([np.empty(0, dtype)], [np.empty(0, dtype)])
        lengths: tuple[list[int], list[int]] = ([], [])
        lines: list[str] = []
        examples = iter(self._shown(self.examples(split, skips), f"encoding {split}"))
        while batch := list(islice(examples, BATCH)):
            rows: tuple[list[int], list[int]] = ([], [])
            for example, encoded in zip(batch, self.encode(batch, tokenizer), strict=True):
                cut = [self._cut(example, part, skips) for part in encoded]
                parts = [part for part in cut if part is not None]
                for side, numbers in chain.from_iterable(map(enumerate, parts)):
                    rows[side].extend(numbers)
                    lengths[side].append(len(numbers))
                if split != "train" and parts:
                    told = vars(example) | {"parts": len(parts)}
                    lines.append(json.dumps(told, ensure_ascii=False) + "\n")
            for arrays, flat in zip(sides, rows, strict=True):
                arrays.append(np.array(flat, dtype))
        for name, arrays, counts in zip(SIDES, sides, lengths, strict=True):
            starts = np.cumsum([0, *counts])[:-1]
            write_shard(folder / f"{split}-{name}.bin", identity, arrays, starts, num_bytes=0)
        if split != "train":
            write_whole(folder / f"{split}.jsonl", "".join(lines).encode())
        pieces = {f"{name} pieces": sum(each) for name, each in zip(SIDES, lengths, strict=True)}
        return {"examples": len(lengths[0]), **pieces, **dict(sorted(skips.counts.items()))}

    def _cut(self, example: Example, encoded: Encoded, skips: Skips) -> list[list[int]] | None:
        """Both sides, if they are short enough or may be cut."""
        cut = []
        for side, row, most in zip(SIDES, encoded, self.limits(), strict=True):
            if most is not None and len(row) > most:
                if self.config.too_long == "raise":
                    raise ValueError(
                        f"{example.place}: its {side} has {len(row)} pieces, more than there is "
                        f"room for ({most} and its end); raise the longest {side}, or set too_long "
                        "to skip or truncate"
                    )
                skips.counts[f"{side} too long"] += 1
                if self.config.too_long == "skip":
                    return None
            cut.append(row[:most])
        return cut

    def _note(self, kind: str, message: str) -> None:
        """Say once what was read otherwise than its name promises."""
        if self.progress and message not in self._noted:
            from tqdm import tqdm

            self._noted.add(message)
            tqdm.write(message, file=sys.stderr)

    def _shown(self, examples: Iterator[Example], what: str) -> Iterator[Example]:
        # Imported here, so that the worker processes of a corpus start without it.
        from tqdm import tqdm

        return tqdm(
            examples, desc=what, unit=" rows", unit_scale=True, disable=not self.progress,
            leave=False,
        )  # fmt: skip


def _is_own(name: str) -> bool:
    return name in OWN or (name.endswith(".part") and name.rsplit(".", 2)[0] in OWN)
