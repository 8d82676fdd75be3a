"""Packed conversations are read and asked as each alone is, on any number of ranks."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt4o_lit.corpus import ConversationsConfig
from gpt4o_lit.data import ConversationsDataModule
from gpt4o_lit.data.conversations import PackLoader
from gpt4o_lit.data.loader import Order
from gpt4o_lit.model import AttentionConfig, StackConfig, Transformer, TransformerConfig
from gpt4o_lit.tokenizer import Bytes

IGNORED = -100


@pytest.fixture
def data(tmp_path: Path) -> ConversationsDataModule:
    rows = [
        {"instruction": "a" * (1 + n % 9), "output": "b" * (1 + n % 7) + str(n)} for n in range(60)
    ]
    (tmp_path / "said.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    path = str(tmp_path / "said.jsonl")
    settings = ConversationsConfig(train=path, valid=path, max_len=65)
    module = ConversationsDataModule(
        settings, Bytes(), str(tmp_path / "prepared"), batch_tokens=256, pack=True
    )
    module.prepare_data()
    module.setup("fit")
    return module


def loader(data: ConversationsDataModule, batch_tokens: int = 256, **order: Any) -> PackLoader:
    split, collate = data.examples.split("train"), data._collate()
    place = Order(**order)
    return PackLoader(split, collate=collate, batch_tokens=batch_tokens, order=place, row_tokens=64)


def said(batch: dict[str, Any]) -> list[list[int]]:
    """What is asked of each conversation of a batch."""
    found = []
    for targets, documents in zip(batch["targets"], batch["documents"], strict=True):
        for number in range(int(documents.max()) + 1):
            own = targets[documents == number]
            found.append(own[own != IGNORED].tolist())
    return found


def test_rows_hold_several_whole_conversations(data: ConversationsDataModule) -> None:
    train = data.train_dataloader()
    assert isinstance(train, PackLoader)
    batches = list(train)
    assert len(batches) == len(train) == data.batches_per_epoch
    assert max(batch["tokens"].shape[1] for batch in batches) <= 64
    assert train.buckets.padding < 0.1
    answers = [tuple(each) for batch in batches for each in said(batch)]
    alone = [data.examples.split("train").pair(n) for n in range(60)]
    asked = [tuple(pieces[marks > 0].tolist()) for pieces, marks in alone]
    assert sorted(answers) == sorted(asked)
    assert sum(batch["conversations"] for batch in batches) == 60
    assert sum(batch["source_len"] for batch in batches) == sum(
        len(pieces) - 1 for pieces, _ in alone
    )


@torch.no_grad()
def test_a_network_says_in_a_packed_row_what_it_says_alone(data: ConversationsDataModule) -> None:
    torch.manual_seed(0)
    stack = StackConfig(num_layers=2, dim=16, attention=AttentionConfig(num_heads=2))
    vocab = data.tokenizer.vocab_size
    net = Transformer(TransformerConfig(decoder=stack, vocab_size=vocab, max_seq_len=64)).eval()
    batch = next(iter(loader(data)))
    logits_BTV = net(batch["tokens"], documents_BT=batch["documents"])
    for row, documents in enumerate(batch["documents"]):
        assert documents.max() > 0
        for number in range(int(documents.max()) + 1):
            own = documents == number
            alone = net(batch["tokens"][row, own][None])[0]
            torch.testing.assert_close(logits_BTV[row, own], alone, atol=1e-5, rtol=0)


def test_ranks_share_what_one_process_is_handed(data: ConversationsDataModule) -> None:
    alone = [sorted(said(batch)) for batch in loader(data, 256)]
    ranks = [loader(data, 128, rank=rank, world_size=2) for rank in range(2)]
    together = [sorted(said(first) + said(second)) for first, second in zip(*ranks, strict=True)]
    assert [[each for each in batch if each] for batch in together] == alone


def test_a_place_among_packed_rows_is_none_among_others(data: ConversationsDataModule) -> None:
    packed = data.train_dataloader()
    next(iter(packed))
    state = packed.state_dict()
    data.pack = False
    with pytest.raises(ValueError, match="the length of packed rows was 64, but it is None"):
        data.train_dataloader().load_state_dict(state)


def test_a_run_from_before_rows_were_packed_goes_on_without(data: ConversationsDataModule) -> None:
    data.pack = False
    plain = data.train_dataloader()
    next(iter(plain))
    state = plain.state_dict()
    del state["the length of packed rows"]
    again = data.train_dataloader()
    again.load_state_dict(state)
    assert again.batches_done == 1
    packed = loader(data, checksum=data.checksum)
    with pytest.raises(ValueError, match="the length of packed rows was None, but it is 64"):
        packed.load_state_dict(state)
