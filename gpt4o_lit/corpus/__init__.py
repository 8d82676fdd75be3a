"""Text files to memory-mapped shards of tokens, and windows out of them."""

from gpt4o_lit.corpus.config import CorpusConfig
from gpt4o_lit.corpus.corpus import Corpus, Split
from gpt4o_lit.corpus.packing import order, shard
from gpt4o_lit.corpus.pairs import Pairs, PairsConfig, PairSplit, prepare_pairs
from gpt4o_lit.corpus.prepare import prepare
from gpt4o_lit.corpus.texts import documents_of

__all__ = [
    "Corpus",
    "CorpusConfig",
    "PairSplit",
    "Pairs",
    "PairsConfig",
    "Split",
    "documents_of",
    "order",
    "prepare",
    "prepare_pairs",
    "shard",
]
