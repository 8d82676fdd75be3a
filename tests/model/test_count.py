"""Counted FLOPs against those of PyTorch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gpt4o_lit.model import (
    NormConfig,
    Transformer,
    TransformerConfig,
    flops_per_token,
    training_flops,
)
from tests.model.conftest import VOCAB, stack

LENGTHS = {
    "decoder": {"target": 24, "asked": 24},
    "encoder": {"target": 24, "asked": 5},
    "encoder_decoder": {"target": 7, "asked": 6, "source": 20},
}


@pytest.mark.parametrize("kind", LENGTHS)
@pytest.mark.parametrize("heads", [{}, {"num_kv_heads": 2, "head_dim": 12}], ids=str)
def test_a_row_costs_the_products_that_pytorch_counts(kind: str, heads: dict) -> None:
    norm, lengths = NormConfig(kind="layer"), LENGTHS[kind]  # RMSNorm's slope is a small product
    make = stack(attention={"kernel": "eager", **heads}, norm=norm)
    net = Transformer(
        TransformerConfig(
            encoder=make if kind != "decoder" else None,
            decoder=make if kind != "encoder" else None,
            vocab_size=VOCAB,
            head_transform=kind == "encoder",
        )
    )
    target = torch.zeros(1, lengths["target"], dtype=torch.long)
    source = torch.zeros(1, lengths["source"], dtype=torch.long) if "source" in lengths else None
    with FlopCounterMode(display=False) as counter:
        features = net.head.features(net.hidden(target, source_BS=source))[:, : lengths["asked"]]
        (features @ net.head.weight.T).sum().backward()
    assert training_flops(net.config, **lengths) == counter.get_total_flops()


def test_without_an_objective_each_stack_reads_the_whole_row() -> None:
    config = TransformerConfig(encoder=stack(), decoder=stack(), vocab_size=VOCAB)
    row = training_flops(config, target=16, asked=16, source=16)
    assert flops_per_token(config, 16) == row / 16
