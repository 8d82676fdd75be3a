"""Data modules: the text as Lightning sees it."""

from gpt4o_lit.data.conversations import ConversationsDataModule
from gpt4o_lit.data.labelled import LabelledDataModule
from gpt4o_lit.data.loader import PackedLoader
from gpt4o_lit.data.packed import PackedDataModule
from gpt4o_lit.data.pairs import PairsDataModule
from gpt4o_lit.data.preferences import PreferencesDataModule
from gpt4o_lit.data.spans import SpansDataModule
from gpt4o_lit.data.tables import BucketLoader
from gpt4o_lit.data.tagged import TaggedDataModule

__all__ = [
    "BucketLoader",
    "ConversationsDataModule",
    "LabelledDataModule",
    "PackedDataModule",
    "PackedLoader",
    "PairsDataModule",
    "PreferencesDataModule",
    "SpansDataModule",
    "TaggedDataModule",
]
