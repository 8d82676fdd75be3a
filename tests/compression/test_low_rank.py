"""Adapters of low rank: nothing at first, alone in training, and part of the weights at the end."""

import copy
import math

import pytest
import torch
from torch import Tensor

from gpt4o_lit.compression import Targets, add_low_rank_, count_trained, quantize_base_
from gpt4o_lit.compression.post_training import round_
from gpt4o_lit.model import Transformer
from gpt4o_lit.model.low_rank import (
    LowRank,
    LowRankConfig,
    merged_state,
    require_same_adapters,
    settings_of,
)
from gpt4o_lit.model.quantized import QuantizedWeight, quantized_weights, restored_state
from gpt4o_lit.model.weight_format import WeightFormat
from gpt4o_lit.optim import AdamW, Muon
from tests.model.conftest import VOCAB, network

INT4 = WeightFormat(bits=4, group_size=32)
BASES = [None, INT4, WeightFormat(bits=8)]
CONFIG = LowRankConfig(rank=4, alpha=6.0)


def logits(net: Transformer) -> Tensor:
    tokens = torch.arange(24).view(2, 12) % VOCAB
    both = net.encoder is not None and net.decoder is not None
    return net(tokens, source_BS=tokens[:, :7]) if both else net(tokens)  # type: ignore[no-any-return]


def adapted(net: Transformer, base: WeightFormat | None = None, **config: float) -> Transformer:
    """With adapters that are not 0."""
    if base is not None:
        quantize_base_(net, base)
    add_low_rank_(net, LowRankConfig(rank=4, alpha=6.0, **config))  # type: ignore[arg-type]
    for part in net.modules():
        if isinstance(part, LowRank):
            torch.nn.init.normal_(part.B, std=0.2)
    return net


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", ["decoder", "encoder", "encoder_decoder"])
def test_at_first_the_network_computes_what_it_did(kind: str, base: WeightFormat | None) -> None:
    net = network(kind)
    if base is not None:
        quantize_base_(net, base)
    plain = Transformer(net.config).eval()
    plain.load_state_dict(restored_state(net))
    add_low_rank_(net, CONFIG)
    torch.testing.assert_close(logits(net), logits(plain), atol=1e-5, rtol=0)


@pytest.mark.parametrize("stabilized", [False, True])
def test_an_adapter_adds_the_product_of_the_paper(stabilized: bool) -> None:
    net = adapted(network("decoder"), rank_stabilized=stabilized)
    layer = net.get_submodule("decoder.blocks.0.attention.qkv")
    x, part = torch.randn(3, 32), layer.low_rank
    scale = 6.0 / (math.sqrt(4) if stabilized else 4)
    expected = x @ (layer.weight + scale * part.B @ part.A).T
    torch.testing.assert_close(layer(x), expected, atol=1e-6, rtol=1e-5)
    assert part.A.abs().max() <= 1 / math.sqrt(32)  # as nn.Linear draws
    assert float(part.A.detach().std()) == pytest.approx(1 / math.sqrt(3 * 32), rel=0.2)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", ["decoder", "encoder", "encoder_decoder"])
def test_added_to_the_weights_they_give_the_same(kind: str, base: WeightFormat | None) -> None:
    net = adapted(network(kind), base)
    plain = Transformer(net.config).eval()
    plain.load_state_dict(merged_state(net.state_dict(), settings_of(net)))
    with torch.no_grad():
        torch.testing.assert_close(logits(net), logits(plain), atol=1e-4, rtol=1e-5)


def test_each_merged_product_is_the_same_to_a_millionth() -> None:
    net = adapted(network("decoder"))
    state = merged_state(net.state_dict(), settings_of(net))
    for name in settings_of(net)["layers"]:
        layer, x = net.get_submodule(name), torch.randn(5, state[f"{name}.weight"].shape[1])
        merged = torch.nn.functional.linear(x, state[f"{name}.weight"], layer.bias)
        torch.testing.assert_close(layer(x), merged, atol=1e-6 * float(merged.abs().max()), rtol=0)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("optimizer", [AdamW(lr=0.01), Muon(lr=0.01)])
def test_a_step_moves_adapters_and_what_is_named_and_nothing_else(
    base: WeightFormat | None, optimizer: AdamW | Muon
) -> None:
    net = network("decoder")
    if base is not None:
        quantize_base_(net, base)
    add_low_rank_(net, CONFIG, train_also=("*.ffn_norm", "decoder.norm"))
    before = copy.deepcopy(net.state_dict())
    steps = optimizer.build(net)
    for _ in range(2):  # A has a gradient once B is not 0
        steps.zero_grad()
        logits(net.train()).square().mean().backward()
        steps.step()
    moved = {name for name, tensor in net.state_dict().items() if not tensor.equal(before[name])}
    trained = {name for name, weight in net.named_parameters() if weight.requires_grad}
    assert moved == trained
    beside = {name for name in trained if ".low_rank." not in name}
    assert beside == {f"decoder.{name}.weight" for name in
                      ("norm", "blocks.0.ffn_norm", "blocks.1.ffn_norm")}  # fmt: skip
    assert count_trained(net) == sum(4 * sum(net.get_submodule(name).weight.shape)
                                     for name in settings_of(net)["layers"]) + 3 * 32  # fmt: skip


@pytest.mark.parametrize("base", BASES[1:])
def test_gradients_go_through_whole_numbers_as_through_floats(base: WeightFormat) -> None:
    """Of few rows, for which the integer kernels would be chosen, and where nothing is adapted."""
    net = network("decoder")
    quantize_base_(net, base)
    plain = Transformer(net.config)
    plain.load_state_dict(restored_state(net))
    targets = Targets(names=("decoder.blocks.0.attention.qkv",))
    gradients = []
    for each in (net, plain):
        torch.manual_seed(1)
        add_low_rank_(each, CONFIG, targets)
        logits(each).square().mean().backward()
        gradients.append(each.get_submodule("decoder.blocks.0.attention.qkv").low_rank.B.grad)
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)
    assert gradients[0].abs().max() > 0
    with torch.autocast("cpu", torch.bfloat16):
        assert logits(net).isfinite().all()


def test_no_matrix_of_floats_is_kept_for_the_backward() -> None:
    weight = QuantizedWeight.rounding(torch.randn(64, 32), INT4)
    weight.trains_others = True
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        weight.product(torch.randn(3, 32, requires_grad=True), None)
    assert all(not tensor.is_floating_point() or tensor.numel() <= 64 for tensor in kept)
    assert kept


def test_dropout_is_for_training_alone() -> None:
    net = adapted(network("decoder"), dropout=0.5)
    with torch.no_grad():
        assert torch.equal(logits(net), logits(net))
        assert not torch.equal(logits(net.train()), logits(net))


def test_a_tied_network_of_whole_numbers_throughout_can_be_adapted() -> None:
    net = network("decoder")
    assert net.config.tie_embeddings
    round_(net, dict.fromkeys(("tokens", "decoder.blocks.0.feed_forward.down"), INT4))
    adapted(net)
    plain = Transformer(net.config).eval()
    plain.load_state_dict(merged_state(net.state_dict(), settings_of(net)))
    assert plain.head.weight is plain.tokens.weight
    torch.testing.assert_close(logits(net), logits(plain), atol=1e-4, rtol=1e-4)
    assert all(each.trains_others for each in quantized_weights(net))


def test_what_cannot_be_is_refused_in_one_line() -> None:
    net = network("decoder")
    qkv = "decoder.blocks.0.attention.qkv"
    for targets, train_also, message in (
        (Targets(names=("*.qvk",)), (), r"\*.qvk matches no layer .* a layer is called decoder"),
        (
            Targets(kinds=("head",)),
            (),
            r"targets.kinds \(head\) must be of attention",
        ),
        (None, ("*.nrm",), r"train_also \(\*.nrm\) matches no layer .* one is called decoder.norm"),
        (None, ("*.qkv",), rf"names {qkv}, which has an adapter; .*by but_not"),
    ):
        with pytest.raises(ValueError, match=message):
            add_low_rank_(net, CONFIG, targets, train_also)
    assert all(weight.requires_grad for weight in net.parameters())
    with pytest.raises(ValueError, match=r"rounds_inputs \(True\) .* set rounds_inputs to false"):
        quantize_base_(net, WeightFormat(rounds_inputs=True))
    for field, value in (("rank", 0), ("alpha", 0.0), ("alpha", math.nan), ("dropout", 1.0)):
        with pytest.raises(ValueError, match=rf"{field} \({value}\) must be .*; set {field} to"):
            LowRankConfig(**{field: value})  # type: ignore[arg-type]


def test_other_adapters_than_the_checkpoint_has_are_refused() -> None:
    net = adapted(network("decoder"))
    saved = settings_of(net)
    require_same_adapters(net, saved)
    require_same_adapters(network("decoder"), None)
    changes = {
        "rank": ({"rank": 3}, r"rank \(4\) is not that of the checkpoint \(3\)"),
        "layers": ({"layers": saved["layers"][1:]}, "targets is not .* 1 layers.*attention.qkv"),
        "trained": ({"trained": ["head"]}, "train_also is not that .* the first is head"),
        "formats": ({"formats": {"tokens": {"bits": 4}}}, "quantize is not .* first is tokens"),
    }
    for change, message in changes.values():
        with pytest.raises(ValueError, match=message):
            require_same_adapters(net, saved | change)
    with pytest.raises(ValueError, match=r"adapters of rank 4, .* gpt4o_lit.callbacks.LoRA"):
        require_same_adapters(network("decoder"), saved)
    with pytest.raises(ValueError, match=r"has no adapters, but LoRA adds some"):
        require_same_adapters(net, None)
