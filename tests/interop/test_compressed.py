"""Packed files: bit-equal when opened again, as small as they can be, refused when not whole."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from gpt4o_lit.compression import FormatRule, Formats, Targets, round_
from gpt4o_lit.interop.compressed import load_compressed, save_compressed
from gpt4o_lit.interop.files import SINGLE
from gpt4o_lit.model import Transformer
from gpt4o_lit.model.quantized import formats_of
from gpt4o_lit.model.weight_format import WeightFormat
from gpt4o_lit.run_directory import NETWORK
from gpt4o_lit.tokenizer import ByteTokenizer
from tests.model.conftest import POSITIONS, VOCAB, network

INT4 = WeightFormat(bits=4, group_size=32)
INT8 = WeightFormat(rounds_inputs=True)
FLOAT8 = WeightFormat(number="float", rounds_inputs=True)


def rounded(net: Transformer, formats: Formats) -> Transformer:
    round_(net, formats.of(net))
    return net


def save(net: Transformer, directory: Path) -> int:
    """Bytes of the weights."""
    save_compressed(net, ByteTokenizer(), directory, {"bidirectional_prompt": True})
    return (directory / SINGLE).stat().st_size


def assert_same(net: Transformer, other: Transformer) -> None:
    state, again = net.state_dict(), other.state_dict()
    assert state.keys() == again.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, again[name]), name
        assert tensor.dtype == again[name].dtype, name


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("kind", ["decoder", "encoder", "encoder_decoder"])
def test_what_was_saved_opens_bit_by_bit(kind: str, position: str, tmp_path: Path) -> None:
    wide = FormatRule(targets=Targets(names=("*.output",)), format=INT8)
    exact = FormatRule(targets=Targets(names=("*.down",)), format=None)
    net = rounded(network(kind, position), Formats(format=INT4, rules=(wide, exact)))
    save(net, tmp_path / "small")
    again, settings = load_compressed(tmp_path / "small")
    assert_same(net, again)
    assert formats_of(again) == formats_of(net)
    assert len(set(formats_of(net).values())) == 2
    assert settings["bidirectional_prompt"] is True
    tokens = torch.randint(0, VOCAB, (2, 9))
    source = {"source_BS": tokens} if kind == "encoder_decoder" else {}
    with torch.no_grad():
        assert torch.equal(again(tokens, **source), net(tokens, **source))
    assert again.head.weight is again.tokens.weight


@pytest.mark.parametrize("format", [None, INT8, INT4, FLOAT8], ids=str)
def test_zeros_take_a_bit_each_where_that_pays(format: WeightFormat | None, tmp_path: Path) -> None:
    dense, sparse = network("decoder"), network("decoder")
    sparse.load_state_dict(dense.state_dict())
    for weight in Targets().weights(sparse).values():
        weight.data[torch.rand(weight.shape) < 0.75] = 0
    if format is not None:
        dense, sparse = (rounded(net, Formats(format=format)) for net in (dense, sparse))
    assert save(sparse, tmp_path / "sparse") < 0.8 * save(dense, tmp_path / "dense")
    assert_same(sparse, load_compressed(tmp_path / "sparse")[0])
    assert not json.loads((tmp_path / "dense" / NETWORK).read_text())["sparse"]


def test_four_bits_lie_two_to_a_byte_and_scales_take_two(tmp_path: Path) -> None:
    net = rounded(network("decoder"), Formats(format=INT4))
    save(net, tmp_path / "small")
    with safe_open(tmp_path / "small" / SINGLE, framework="pt") as file:
        names = set(file.keys())
        numbers = file.get_tensor("tokens.weight.numbers")
        scales = file.get_tensor("tokens.weight.scales")
    assert not any(name.startswith("head.weight") for name in names)
    assert numbers.shape == (VOCAB, 16)
    assert scales.shape == (VOCAB, 1)
    assert (numbers.dtype, scales.dtype) == (torch.uint8, torch.bfloat16)


def test_files_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    directory = tmp_path / "small"
    save(rounded(network("decoder"), Formats(format=INT4)), directory)
    whole, settings = (directory / SINGLE).read_bytes(), (directory / NETWORK).read_text()
    (directory / SINGLE).write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        load_compressed(directory)
    (directory / SINGLE).write_bytes(whole)
    (directory / NETWORK).write_text(settings.replace('"num_layers": 2', '"num_layers": 1'))
    with pytest.raises(ValueError, match=r"its network has no layer decoder\.blocks\.1"):
        load_compressed(directory)
    (directory / NETWORK).write_text(settings.replace('"vocab_size": 50', '"vocab_size": 51'))
    with pytest.raises(ValueError, match=r"4 tensors do not fit network\.json"):
        load_compressed(directory)
    (directory / NETWORK).write_text(settings.replace('"version": 1', '"version": 7'))
    with pytest.raises(ValueError, match=r"version \(7\) is not 1"):
        load_compressed(directory)


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        (Formats(format=WeightFormat(bits=4, group_size=16)), "group_size .16. has no kernel"),
        (Formats(format=WeightFormat(bits=8, group_size=48)), "must be a multiple of group_size"),
        (Formats(targets=Targets(names=("*.q_proj",))), r"\*\.q_proj matches no layer"),
    ],
)
def test_formats_that_do_not_fit_are_refused(formats: Formats, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        formats.of(network("decoder"))
