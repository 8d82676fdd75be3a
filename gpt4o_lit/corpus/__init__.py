"""Text files to memory-mapped shards of tokens, and windows out of them."""

from gpt4o_lit.corpus.config import CorpusConfig
from gpt4o_lit.corpus.conversations import ConversationsConfig, prepare_conversations
from gpt4o_lit.corpus.corpus import Corpus, Split
from gpt4o_lit.corpus.examples import Examples, ExampleSplit
from gpt4o_lit.corpus.labelled import LabelledConfig, prepare_labelled
from gpt4o_lit.corpus.packing import order, shard
from gpt4o_lit.corpus.pairs import PairsConfig, prepare_pairs
from gpt4o_lit.corpus.preferences import PreferencesConfig, prepare_preferences
from gpt4o_lit.corpus.prepare import prepare
from gpt4o_lit.corpus.spans import SpansConfig, prepare_spans
from gpt4o_lit.corpus.tagged import TaggedConfig, prepare_tagged
from gpt4o_lit.corpus.texts import documents_of

__all__ = [
    "ConversationsConfig",
    "Corpus",
    "CorpusConfig",
    "ExampleSplit",
    "Examples",
    "LabelledConfig",
    "PairsConfig",
    "PreferencesConfig",
    "SpansConfig",
    "Split",
    "TaggedConfig",
    "documents_of",
    "order",
    "prepare",
    "prepare_conversations",
    "prepare_labelled",
    "prepare_pairs",
    "prepare_preferences",
    "prepare_spans",
    "prepare_tagged",
    "shard",
]
