"""Numbers packed as compressed-tensors packs them; transformers computes the same logits."""

import json
from pathlib import Path

import pytest
import torch

from gpt4o_lit.compression import FormatRule, Formats, Targets, round_
from gpt4o_lit.interop import open_hugging_face
from gpt4o_lit.interop.compressed_tensors import pack
from gpt4o_lit.interop.export import export_compressed_tensors
from gpt4o_lit.interop.run import OpenedRun
from gpt4o_lit.model.weight_format import WeightFormat
from gpt4o_lit.tokenizer import ByteTokenizer
from tests.interop.tiny_hugging_face import make

INT4 = WeightFormat(bits=4, group_size=32)
NARROW = Targets(names=("*.down",))  # of 48 inputs


def quantized(name: str, folder: Path, *formats: WeightFormat | None) -> OpenedRun:
    """A family's tiny network; `down` has the second format, or stays as it is."""
    make(name).save_pretrained(folder / "theirs")
    net = open_hugging_face(folder / "theirs")
    first, second = formats
    assert first is not None
    rules = (FormatRule(targets=NARROW, format=second),)
    round_(net, Formats(format=first, rules=rules).of(net))
    return OpenedRun(net, ByteTokenizer(), Path("best.ckpt"), folder, False, False)


@pytest.mark.parametrize("bits", [4, 8])
def test_words_are_theirs(bits: int) -> None:
    theirs = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    low = -(1 << (bits - 1))
    numbers = torch.randint(low, -low, (5, 64), dtype=torch.int8)
    assert torch.equal(pack(numbers, bits), theirs.pack_to_int32(numbers, bits))
    assert int(pack(numbers, bits).min()) < 0  # the highest bit is used


@pytest.mark.parametrize(
    "formats",
    [
        (INT4, None),
        (INT4, WeightFormat()),
        (WeightFormat(rounds_inputs=True), WeightFormat(rounds_inputs=True)),
        (WeightFormat(number="float", rounds_inputs=True), None),
    ],
)
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_transformers_computes_the_same(
    name: str, formats: tuple[WeightFormat | None, ...], tmp_path: Path
) -> None:
    pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed")
    run = quantized(name, tmp_path, *formats)
    (compared,) = export_compressed_tensors(run, tmp_path / "out")
    assert compared.largest > 0.01
    assert compared.is_equal


def test_what_it_cannot_carry_is_refused(tmp_path: Path) -> None:
    run = quantized("gpt2", tmp_path, INT4, None)
    with pytest.raises(ValueError, match="gpt2 of transformers has others"):
        export_compressed_tensors(run, tmp_path / "out")
    make("llama").save_pretrained(tmp_path / "dense")
    net = open_hugging_face(tmp_path / "dense")
    dense = OpenedRun(net, ByteTokenizer(), Path("best.ckpt"), tmp_path, False, False)
    with pytest.raises(ValueError, match="the run has none; compress it first"):
        export_compressed_tensors(dense, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_layer_says_how_it_is_stored(tmp_path: Path) -> None:
    run = quantized("llama", tmp_path, INT4, WeightFormat(rounds_inputs=True))
    export_compressed_tensors(run, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]
    assert config["format"] == "mixed-precision"
    groups = {each["weights"]["num_bits"]: each for each in config["config_groups"].values()}
    assert groups[4]["weights"]["group_size"] == 32
    assert groups[4]["input_activations"] is None
    assert groups[8]["input_activations"]["strategy"] == "token"
    assert all("down_proj" in name for name in groups[8]["targets"])
    assert "model.layers.0.self_attn.q_proj" in groups[4]["targets"]
