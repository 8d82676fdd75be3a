"""What a corpus is made of."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Where the text comes from, what a document is, and which split it goes to."""

    sources: list[str]
    """Files, folders, globs, or the name python-stdlib (the sources that come with every Python).
    Read are .txt .md .py .jsonl .csv .tsv .parquet, each also with .gz or .zst behind."""
    valid_sources: list[str] = field(default_factory=list)
    """Sources that are the valid split, whole; valid_fraction then has no say."""
    test_sources: list[str] = field(default_factory=list)
    """Sources that are the test split, whole; test_fraction then has no say."""
    text_field: str = "text"
    """Field or column that holds the text in .jsonl, .csv, .tsv and .parquet."""
    documents: Literal["file", "line", "blank_line"] = "file"
    """What one document is in .txt and .md: the whole file, each line, or what stands between
    blank lines."""
    split: Literal["hash", "position"] = "hash"
    """hash: each document goes to one split, by its content. position: of each document the first
    characters are train, the next valid, the last test (for a single long text)."""
    valid_fraction: float = 0.05
    """Share of the sources that is the valid split."""
    test_fraction: float = 0.0
    """Share of the sources that is the test split."""
    deduplicate: bool = True
    """Leave out each document that came before, also in valid_sources or test_sources."""
    add_bos: bool = False
    """Put the bos piece before each document."""
    add_eos: bool = True
    """Put the eos piece behind each document."""
    on_error: Literal["raise", "skip"] = "raise"
    """What to do with text that cannot be read: stop and name it, or leave it out and count it."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError(
                "sources is empty; name at least one file, folder, glob or python-stdlib"
            )
        for name in ("valid_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be in 0..1; set it to 0.05")
        if self.valid_share + self.test_share >= 1:
            raise ValueError(
                f"valid_fraction ({self.valid_fraction}) + test_fraction ({self.test_fraction}) "
                "must leave something to train on; make them smaller"
            )

    @property
    def valid_share(self) -> float:
        """The share of `sources` that goes to valid."""
        return 0.0 if self.valid_sources else self.valid_fraction

    @property
    def test_share(self) -> float:
        """The share of `sources` that goes to test."""
        return 0.0 if self.test_sources else self.test_fraction
