"""Data modules: the text as Lightning sees it."""

from gpt4o_lit.data.loader import PackedLoader
from gpt4o_lit.data.packed import PackedDataModule
from gpt4o_lit.data.pairs import PairsDataModule, PairsLoader

__all__ = ["PackedDataModule", "PackedLoader", "PairsDataModule", "PairsLoader"]
