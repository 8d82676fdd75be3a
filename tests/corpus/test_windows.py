"""Windows are what a plain loop over the tokens would give."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from gpt4o_lit.corpus import Corpus, CorpusConfig, Split, order, prepare, shard
from gpt4o_lit.tokenizer import Bytes


def slow_window(split: Split, index: int, seq_len: int) -> tuple[list[int], list[int]]:
    tokens = [int(token) for part in split.shards for token in part.tokens]
    starts = set(split.document_starts.tolist())
    first = index * seq_len
    documents, document = [], 0
    for at in range(first, first + seq_len + 1):
        document += at in starts and at > first
        documents.append(document)
    return tokens[first : first + seq_len + 1], documents


@pytest.mark.parametrize("seq_len", [1, 7, 64, 1000])
def test_windows_equal_the_slow_twin(
    seq_len: int,
    config: CorpusConfig,
    tmp_path: Path,
    small_shards: Callable[[int], None],
) -> None:
    small_shards(700)
    split = prepare(config, Bytes(), tmp_path / "c", num_workers=0).split("train")
    assert len(split.shards) > 10
    limit = split.num_windows(seq_len)
    indices = np.unique(np.linspace(0, limit - 1, 23).astype(int))[::-1]
    tokens, documents = split.windows(indices, seq_len)
    assert (tokens.dtype, documents.dtype) == (np.int64, np.int32)
    for row, index in enumerate(indices):
        slow_tokens, slow_documents = slow_window(split, int(index), seq_len)
        assert tokens[row].tolist() == slow_tokens
        assert documents[row].tolist() == slow_documents


def test_each_token_but_the_first_is_a_target_once(corpus: Corpus) -> None:
    split = corpus.split("train")
    tokens, _ = split.windows(np.arange(split.num_windows(13)), 13)
    targets = tokens[:, 1:].ravel()
    assert targets.tolist() == split.tokens(1, 1 + len(targets)).tolist()
    assert split.num_tokens - 1 - len(targets) < 13


def test_documents_come_back_as_they_went_in(corpus: Corpus, folder: Path) -> None:
    texts = []
    for name in ("train", "valid"):
        split = corpus.split(name)
        bounds = [*split.document_starts.tolist(), split.num_tokens]
        for start, stop in pairwise(bounds):
            ids = split.tokens(start, stop).tolist()
            assert ids[-1] == corpus.tokenizer.eos_id
            texts.append(corpus.tokenizer.decode(ids))
    written = [path.read_text(encoding="utf-8").splitlines() for path in folder.iterdir()]
    assert sorted(texts) == sorted(line for each in written for line in each)


def test_counts_are_those_of_the_text(corpus: Corpus) -> None:
    for name in ("train", "valid"):
        split = corpus.split(name)
        assert (
            split.num_bytes == corpus.tokenizer.token_bytes[split.tokens(0, split.num_tokens)].sum()
        )
        assert split.num_tokens == split.num_bytes + split.num_documents
        assert corpus.manifest["splits"][name]["tokens"] == split.num_tokens


def test_windows_outside_are_refused(corpus: Corpus) -> None:
    split = corpus.split("train")
    limit = split.num_windows(16)
    with pytest.raises(ValueError, match=rf"indices must be in 0..{limit - 1}"):
        split.windows(np.array([limit]), 16)
    with pytest.raises(ValueError, match="must be one of train, valid, test"):
        corpus.split("dev")


def test_an_order_is_a_permutation_of_its_own_for_each_seed_and_epoch() -> None:
    orders = {(seed, epoch): order(500, seed, epoch) for seed in (0, 1) for epoch in (0, 1)}
    for each in orders.values():
        assert sorted(each.tolist()) == list(range(500))
    assert len({each.tobytes() for each in orders.values()}) == 4
    assert order(500, 1, 1).tolist() == orders[1, 1].tolist()


@pytest.mark.parametrize("start", [0, 24])
def test_a_global_batch_is_the_same_set_for_any_number_of_ranks(start: int) -> None:
    whole, size = order(240, 3, 0), 12
    for world in (1, 2, 3, 4):
        parts = [shard(whole, rank, world, start) for rank in range(world)]
        assert len({len(part) for part in parts}) == 1
        for batch in range((240 - start) // size):
            share = size // world
            got = {int(k) for part in parts for k in part[batch * share : (batch + 1) * share]}
            at = start + batch * size
            assert got == set(whole[at : at + size].tolist())


def test_a_rank_outside_the_world_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rank \(2\) must be in 0..1"):
        shard(order(10, 0, 0), 2, 2)
    with pytest.raises(ValueError, match=r"start \(11\) must be in 0..10"):
        shard(order(10, 0, 0), 0, 2, 11)
