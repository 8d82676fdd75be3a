"""The library peft opens our adapters on transformers' own model, and computes what we do."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import nn

from gpt4o_lit.compression import Targets, add_low_rank_
from gpt4o_lit.interop.adapter import save_adapter
from gpt4o_lit.interop.load import open_hugging_face
from gpt4o_lit.interop.run import PREFIX
from gpt4o_lit.model import Transformer
from gpt4o_lit.model.low_rank import LowRankConfig, settings_of
from tests.interop.tiny_hugging_face import MODELS, PAIRS, make
from tests.model.conftest import network


def saved(net: Transformer) -> dict[str, Any]:
    """What a checkpoint has of it."""
    return {
        "transformer_config": net.config.to_dict(),
        "low_rank": settings_of(net),
        "state_dict": {PREFIX + name: tensor for name, tensor in net.state_dict().items()},
    }


def ours(base: nn.Module, path: Path) -> Transformer:
    """Their model as our network."""
    base.save_pretrained(path / "base")
    return open_hugging_face(path / "base")


@torch.no_grad()
def shaken(net: Transformer) -> Transformer:
    """As if everything that trains had been trained."""
    for weight in net.parameters():
        if weight.requires_grad:
            weight += 0.1 * torch.randn_like(weight)
    return net


@torch.no_grad()
def difference(net: Transformer, theirs: nn.Module, pair: bool) -> float:
    tokens, source = torch.randint(1, 60, (2, 9)), torch.randint(1, 60, (2, 7))
    if pair:
        given = theirs(input_ids=source, decoder_input_ids=tokens).logits
        return float((net(tokens, source_BS=source) - given).abs().max())
    return float((net(tokens) - theirs(input_ids=tokens).logits).abs().max())


@pytest.mark.parametrize("name", MODELS)
def test_peft_computes_what_we_do(name: str, tmp_path: Path) -> None:
    base = make(name)
    net = ours(base, tmp_path)
    stabilized = name == "llama"
    config = LowRankConfig(rank=3, alpha=4.5, dropout=0.1, rank_stabilized=stabilized)
    add_low_rank_(net, config, train_also=("*ffn_norm",))
    save_adapter(saved(shaken(net)), tmp_path)
    assert difference(net, base, name in PAIRS) > 1e-2
    theirs = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    assert difference(net, theirs, name in PAIRS) < 1e-5
    merged = theirs.merge_and_unload()
    assert difference(net, merged, name in PAIRS) < 1e-5


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2"])
def test_some_layers_and_the_head_go_over_too(name: str, tmp_path: Path) -> None:
    base = make(name)
    net = ours(base, tmp_path)
    targets = Targets(names=("decoder.blocks.1.*",), but_not=("*.output",))
    add_low_rank_(net, LowRankConfig(rank=2), targets, ("tokens", "decoder.blocks.0.*.qkv"))
    save_adapter(saved(shaken(net)), tmp_path)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    assert difference(net, theirs, False) < 1e-5


def test_what_has_no_place_there_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    net = network("decoder", position="alibi")
    add_low_rank_(net, LowRankConfig())
    with pytest.raises(ValueError, match="cannot carry"):
        save_adapter(saved(net), tmp_path / "adapter")
    net = ours(make("bert"), tmp_path)
    add_low_rank_(net, LowRankConfig(), train_also=("head",))
    with pytest.raises(ValueError, match="no place for tokens of bert, which train_also names"):
        save_adapter(saved(net), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
