"""Quantization block by block: scales move without a trace, and each method is worth its name."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor

from gpt4o_lit.compression import Targets
from gpt4o_lit.compression.calibration import gram
from gpt4o_lit.compression.post_training import (
    RoundingMethod,
    quantize_blocks_,
)
from gpt4o_lit.compression.rounding import round_to_nearest
from gpt4o_lit.compression.smoothing import awq_scales, scalables, smooth_scales
from gpt4o_lit.model import FeedForwardConfig, NormConfig, Transformer
from gpt4o_lit.model.weight_format import WeightFormat
from tests.compression.test_activation_aware import matrix_and_inputs, network_and_forwards
from tests.model.conftest import VOCAB, network

KINDS = ["decoder", "encoder", "encoder_decoder"]
FORMAT = WeightFormat(bits=4, group_size=8)


def outputs(net: Transformer) -> Tensor:
    tokens = torch.arange(VOCAB).view(5, 10)
    both = net.encoder is not None and net.decoder is not None
    with torch.no_grad():
        return net(tokens, source_BS=tokens.flip(0)) if both else net(tokens)  # type: ignore


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("activation", ["swiglu", "gelu"])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_moving_scales_changes_nothing(
    kind: str, kv_heads: int, activation: str, placement: str
) -> None:
    net = network(
        kind,
        attention={"num_kv_heads": kv_heads, "qkv_bias": True},
        feed_forward=FeedForwardConfig(activation=activation, bias=True),  # type: ignore[arg-type]
        norm=NormConfig(kind="layer", placement=placement),  # type: ignore[arg-type]
    ).double()
    before, moved = outputs(net), []
    for side in ("encoder", "decoder"):
        stack = getattr(net, side)
        for number, block in enumerate(stack.blocks if stack else []):
            for each in scalables(f"{side}.blocks.{number}", block):
                assert net.get_submodule(each.reader) is each.layer
                each.scale_(torch.rand(each.layer.in_features).double() + 0.5)  # type: ignore
                moved.append(each.reader.rpartition(".")[2])
    torch.testing.assert_close(outputs(net), before, atol=1e-8, rtol=1e-8)
    expected = (
        {"qkv", "gate_up" if activation == "swiglu" else "up"} if placement == "pre" else set()
    )
    expected |= {"output"} if kv_heads == 4 else set()
    expected |= {"down"} if activation == "swiglu" else set()
    expected |= {"q"} if placement == "pre" and kind == "encoder_decoder" else set()
    assert set(moved) == expected


def test_awq_takes_the_best_of_its_scales() -> None:
    weight, inputs = matrix_and_inputs(32, 48)
    found = awq_scales(weight, gram(inputs), FORMAT)

    def error(scales: Tensor) -> float:
        rounded = FORMAT.restore(*round_to_nearest(weight * scales, FORMAT)) / scales
        return float((inputs @ (rounded - weight).T).square().sum())

    sizes = inputs.square().mean(0).sqrt()
    tried = []
    for strength in range(20):
        scales = (sizes / sizes.mean()) ** (strength / 20)
        tried.append(error(scales / (scales.max() * scales.min()).sqrt()))
    assert error(found) == pytest.approx(min(tried), rel=1e-3)
    assert min(tried) < tried[0]


def test_smooth_scales_leave_inputs_and_weights_as_large() -> None:
    weight, inputs = matrix_and_inputs()
    scales = smooth_scales(weight, inputs.abs().amax(0))
    of_inputs, of_weights = (inputs / scales).abs().amax(0), (weight * scales).abs().amax(0)
    torch.testing.assert_close(of_inputs, of_weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["nearest", "gptq", "awq", "smooth"])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_become_what_their_numbers_stand_for(kind: str, method: RoundingMethod) -> None:
    net, forwards = network_and_forwards(kind)
    weights = Targets().weights(net)
    formats = dict.fromkeys(weights, FORMAT)
    numbers: dict[str, tuple[Tensor, Tensor]] = {}
    for part in quantize_blocks_(net, formats, forwards, method):
        numbers |= part
    assert numbers.keys() == weights.keys()
    for name, weight in weights.items():
        assert torch.equal(FORMAT.restore(*numbers[name]), weight)
    assert outputs(net).isfinite().all()


def test_each_method_is_better_than_rounding_to_nearest() -> None:
    """With a few inputs that are much larger than the rest, as networks have them."""
    methods: tuple[RoundingMethod, ...] = ("nearest", "gptq", "awq")
    apart = dict.fromkeys(methods, 0.0)
    for seed in range(4):
        torch.manual_seed(seed)
        dense = network("decoder")
        for name, weight in dense.named_parameters():
            if name.endswith("norm.weight"):
                weight.data[torch.randperm(32)[:3]] *= 6
            elif weight.ndim == 2:
                weight.data *= 0.5
        tokens = torch.randint(0, VOCAB, (4, 8, 32))
        for method in methods:
            net = copy.deepcopy(dense)
            forwards = [partial(net, batch) for batch in tokens]
            of_rows = dict.fromkeys(Targets().weights(net), WeightFormat(bits=4))
            assert len(list(quantize_blocks_(net, of_rows, forwards, method))) == 2
            apart[method] += float((outputs(net) - outputs(dense)).square().mean())
    assert apart["gptq"] < 0.8 * apart["nearest"]
    assert apart["awq"] < 0.9 * apart["nearest"]
