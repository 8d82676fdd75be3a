"""Batches of pairs are what the network reads, the same sets for any number of ranks."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gpt4o_lit.corpus import PairsConfig
from gpt4o_lit.data import BucketLoader, PairsDataModule
from gpt4o_lit.data.loader import Order
from gpt4o_lit.data.pairs import CollatePairs
from gpt4o_lit.tokenizer import Bytes

IGNORED = -100


@pytest.fixture
def data(tmp_path: Path) -> PairsDataModule:
    lines = [f"{'s' * (1 + n % 7)}{n}\t{'t' * (1 + n % 5)}{n}\n" for n in range(50)]
    (tmp_path / "pairs.tsv").write_text("".join(lines), encoding="utf-8")
    pairs = PairsConfig(
        train=str(tmp_path / "pairs.tsv"), valid=str(tmp_path / "pairs.tsv"),
        columns=["source", "target"], max_source_len=16, max_target_len=16,
    )  # fmt: skip
    module = PairsDataModule(pairs, Bytes(), str(tmp_path / "prepared"), batch_tokens=100)
    module.prepare_data()
    module.setup("fit")
    return module


def loader(data: PairsDataModule, batch_tokens: int = 100, **order: Any) -> BucketLoader:
    collate = CollatePairs(data.tokenizer.pad_id, data.tokenizer.eos_id, joined=False)
    split, place = data.examples.split("train"), Order(**order)
    return BucketLoader(split, collate=collate, batch_tokens=batch_tokens, order=place)


def said(batch: dict[str, Any]) -> list[list[int]]:
    """The targets of a batch, asked positions alone."""
    return [row[row != IGNORED].tolist() for row in batch["targets"]]


def test_an_encoder_decoder_reads_the_source_and_says_the_target(data: PairsDataModule) -> None:
    tokenizer, texts = (
        data.tokenizer,
        {pair.references[0]: pair.source for pair in data.texts("valid")},
    )
    seen = []
    for batch in data.val_dataloader():
        assert batch["source"].numel() + batch["tokens"].numel() <= 200
        rows = zip(
            batch["source"], batch["source_documents"], batch["tokens"], said(batch), strict=True
        )
        for source, documents, tokens, target in rows:
            assert target[-1] == tokenizer.eos_id
            assert tokens[: len(target)].tolist() == [tokenizer.pad_id, *target[:-1]]
            real = source[documents == 0]
            assert (source[documents == -1] == tokenizer.pad_id).all()
            assert real[-1] == tokenizer.eos_id
            text = tokenizer.decode(target)
            assert tokenizer.decode(real.tolist()) == texts[text]
            seen.append(text)
        assert batch["source_len"] == int((batch["source_documents"] == 0).sum())
        assert batch["target_len"] == int((batch["targets"] != IGNORED).sum())
    assert sorted(seen) == sorted(texts)


def test_a_decoder_reads_both_and_is_asked_for_the_target(data: PairsDataModule) -> None:
    tokenizer, texts = (
        data.tokenizer,
        {pair.references[0]: pair.source for pair in data.texts("valid")},
    )
    data.joined = True
    for batch in data.val_dataloader():
        for tokens, targets, target in zip(
            batch["tokens"], batch["targets"], said(batch), strict=True
        ):
            first = int((targets != IGNORED).nonzero()[0])
            assert torch.equal(
                targets[first : first + len(target) - 1], tokens[first + 1 :][: len(target) - 1]
            )
            assert tokenizer.decode(tokens[: first + 1].tolist()) == texts[tokenizer.decode(target)]
            assert target[-1] == tokenizer.eos_id


def test_a_loader_that_was_stopped_goes_on_behind_its_last_batch(data: PairsDataModule) -> None:
    whole = loader(data)
    expected = [said(batch) for _ in range(2) for batch in whole]
    stopped, seen = loader(data), []
    for batch in stopped:
        seen.append(said(batch))
        if len(seen) == 3:
            break
    resumed = loader(data)
    resumed.load_state_dict(stopped.state_dict())
    assert seen + [said(batch) for _ in range(2) for batch in resumed] == expected


@pytest.mark.parametrize("world_size", [2, 4])
def test_each_global_batch_is_the_same_set_for_any_number_of_ranks(
    world_size: int, data: PairsDataModule
) -> None:
    alone = [sorted(said(batch)) for batch in loader(data, batch_tokens=40)]
    place: dict[str, Any] = {"batch_tokens": 40 // world_size, "world_size": world_size}
    ranks = [[said(batch) for batch in loader(data, rank=r, **place)] for r in range(world_size)]
    together = [
        sorted(target for part in step for target in part if target)
        for step in zip(*ranks, strict=True)
    ]
    assert together == alone


def test_a_place_in_other_batches_is_refused(data: PairsDataModule) -> None:
    stopped = loader(data)
    next(iter(stopped))
    for change in ({"batch_tokens": 64}, {"seed": 1}, {"checksum": "other"}):
        with pytest.raises(ValueError, match="set it as it was"):
            loader(data, **change).load_state_dict(stopped.state_dict())


def test_a_batch_without_room_for_the_longest_pair_is_refused() -> None:
    pairs = PairsConfig(train="x.tsv", max_source_len=100, max_target_len=100)
    with pytest.raises(ValueError, match=r"batch_tokens \(150\) must have room"):
        PairsDataModule(pairs, Bytes(), "nowhere", batch_tokens=150)
