"""A network shared by two processes says and learns what the whole one does."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed

from gpt4o_lit.model import (
    AttentionConfig,
    FeedForwardConfig,
    NormConfig,
    PositionConfig,
    StackConfig,
    Transformer,
    TransformerConfig,
)
from gpt4o_lit.objectives import VocabularyPart, linear_cross_entropy, token_statistics
from gpt4o_lit.objectives.chunks import WHOLE
from gpt4o_lit.strategies.parallel_layers import Ranks, share_
from gpt4o_lit.strategies.split import splits_of

ROWS, LENGTH, PIECES = 3, 7, 12  # a length that two processes do not divide
PLAIN = StackConfig(num_layers=2, dim=16, attention=AttentionConfig(num_heads=4, num_kv_heads=2))
BERT = replace(
    PLAIN,
    attention=AttentionConfig(num_heads=2, qkv_bias=True, output_bias=True),
    feed_forward=FeedForwardConfig(activation="gelu", bias=True),
    norm=NormConfig(kind="layer", placement="post"),
    position=PositionConfig(kind="learned"),
    embedding_norm=True,
    num_token_types=2,
)
T5 = replace(
    PLAIN, position=PositionConfig(kind="relative"), attention=AttentionConfig(num_heads=4)
)
ALIBI = replace(PLAIN, position=PositionConfig(kind="alibi"))
QWEN = replace(PLAIN, attention=replace(PLAIN.attention, qk_norm=True), checkpointing=True)
MARIAN = replace(BERT, position=PositionConfig(kind="sinusoidal"), num_token_types=0)


@dataclass(frozen=True)
class Case:
    """A network, and what of its loss is out of the ordinary."""

    config: TransformerConfig
    loss: dict[str, Any]


def case(loss: dict[str, Any] | None = None, **stacks: Any) -> Case:
    return Case(TransformerConfig(vocab_size=PIECES, max_seq_len=8, **stacks), loss or {})


CASES = {
    "llama": case(decoder=PLAIN),
    "untied": case(decoder=PLAIN, tie_embeddings=False, head_bias=True),
    "bert": case(encoder=BERT, head_transform=True, head_bias=True),
    "t5": case(encoder=T5, decoder=T5, head_scale=0.25),
    "marian": case({"label_smoothing": 0.1}, encoder=MARIAN, decoder=MARIAN, head_bias=True),
    "alibi": case({"z_loss": 1e-2, "chunk_size": 5}, decoder=ALIBI),
    "gemma": case({"softcap": 3.0}, decoder=QWEN, logit_softcap=3.0),
}


def batch(config: TransformerConfig) -> tuple[dict[str, Any], Tensor]:
    """What the network reads, two documents a row, and what it is to say."""
    numbers = torch.randint(PIECES, (3, ROWS, LENGTH))
    documents = (torch.arange(LENGTH) > 3).long().expand(ROWS, -1).clone()
    documents[0, -2:] = -1
    read: dict[str, Any] = {"tokens_BT": numbers[0], "documents_BT": documents}
    if config.kind == "encoder_decoder":
        read |= {"source_BS": numbers[1, :, :5], "source_documents_BS": documents[:, :5]}
    return read, numbers[2].masked_fill(documents < 0, -100).flatten()


def learned(
    network: Transformer, of: Case, part: VocabularyPart = WHOLE
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of a batch, that of each position, and which were guessed; gradients are left."""
    torch.manual_seed(1)
    read, targets = batch(of.config)
    features = network.head.features(network.hidden(**read)).flatten(0, 1)
    head = network.head
    loss = linear_cross_entropy(
        features, head.matrix(), targets, bias=head.bias, part=part, **of.loss
    )
    loss.backward()
    softcap = of.loss.get("softcap")
    nll, right = token_statistics(
        features, head.matrix(), targets, bias=head.bias, softcap=softcap, part=part
    )
    return loss.detach(), nll, right


def built(of: Case) -> Transformer:
    torch.manual_seed(0)
    network = Transformer(of.config)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return network


def compare(rank: int, size: int, folder: str) -> None:
    """All cases in one process of several; whatever is wrong is raised."""
    store = distributed.FileStore(f"{folder}/store", size)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=size)
    group = distributed.group.WORLD
    for name, of in CASES.items():
        whole, network = built(of), built(of)
        splits = splits_of(whole)
        share_(network, Ranks(group, rank, size))
        for ours, theirs in zip(
            learned(network, of, VocabularyPart(rank, size, group)), learned(whole, of), strict=True
        ):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5, msg=f"{name}: loss")
        gradients = {key: weight.grad for key, weight in whole.named_parameters()}
        for key, weight in network.named_parameters():
            grad, expected = weight.grad, gradients[key]
            assert grad is not None
            assert expected is not None
            if key in splits:
                expected = splits[key].own(expected, rank, size)
            else:
                distributed.all_reduce(grad)
            torch.testing.assert_close(grad, expected, atol=2e-5, rtol=1e-4, msg=f"{name}: {key}")
    Path(folder, f"equal_{rank}").write_text("\n".join(CASES), encoding="utf-8")
    distributed.destroy_process_group()


def test_shared_networks_learn_what_whole_ones_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.multiprocessing.spawn(compare, (2, str(tmp_path)), nprocs=2)
    equal = [path.read_text(encoding="utf-8").split("\n") for path in tmp_path.glob("equal_*")]
    assert equal == [list(CASES)] * 2
