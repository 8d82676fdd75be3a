"""What cannot be read is refused in one line that names the file, the field and the mend."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt4o_lit.interop import load_hugging_face

from .tiny_hugging_face import make


def set_field(directory: Path, name: str, value: object) -> None:
    """Change one field of config.json."""
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))


FIELDS = [
    ("llama", "model_type", "opt", r"model_type \('opt'\) is unsupported; supported: gpt2, llama"),
    ("llama", "model_type", None, r"model_type \(None\) is unsupported; supported: gpt2"),
    ("llama", "hidden_size", "32", r"hidden_size \('32'\) must be int; correct it"),
    ("llama", "hidden_size", None, r"hidden_size \(None\) is required; give it as int"),
    ("llama", "num_attention_heads", 3, r"config\.json: .*num_heads \(3\)"),
    ("llama", "hidden_act", "mish", r"hidden_act \('mish'\) is unsupported; supported: silu"),
    ("llama", "rope_parameters", {"rope_type": "yarn"}, r"rope_type \('yarn'\) is unsupported"),
    ("llama", "rope_parameters", [1], r"rope_parameters \(\[1\]\) must be dict"),
    ("llama", "quantization_config", {"bits": 4}, r"quantization_config .* only None is"),
    ("gpt2", "scale_attn_by_inverse_layer_idx", True, r"scale_attn_by_inverse_layer_idx \(True\)"),
    ("bert", "hidden_act", "relu", r"hidden_act \('relu'\) is unsupported, only 'gelu' is"),
    ("bert", "is_decoder", True, r"is_decoder \(True\) is unsupported, only False is"),
    ("t5", "feed_forward_proj", "gated-relu", r"feed_forward_proj \('gated-relu'\) is unsupported"),
    ("marian", "share_encoder_decoder_embeddings", False, r"share_encoder_decoder_embeddings"),
    ("marian", "decoder_vocab_size", 60, r"decoder_vocab_size \(60\)"),
    (
        "qwen2-window",
        "layer_types",
        ["full_attention", "sliding_attention"],
        r"layer_types .* all layers must be alike",
    ),
]


@pytest.mark.parametrize(("model", "name", "value", "message"), FIELDS)
def test_a_field_that_we_lack_is_refused(model, name, value, message, saved) -> None:
    _, directory = saved(model)
    set_field(directory, name, value)
    with pytest.raises(ValueError, match=message) as caught:
        load_hugging_face(directory)
    assert "\n" not in str(caught.value)
    assert str(directory / "config.json") in str(caught.value)


def test_a_missing_field_is_named(saved) -> None:
    _, directory = saved("llama")
    values = json.loads((directory / "config.json").read_text())
    del values["hidden_size"]
    (directory / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"config\.json: hidden_size is missing"):
        load_hugging_face(directory)


def test_a_config_that_is_no_json_is_named(saved) -> None:
    _, directory = saved("llama")
    (directory / "config.json").write_text('{"model_type": ')
    with pytest.raises(ValueError, match=r"config\.json: is no JSON"):
        load_hugging_face(directory)


def test_a_directory_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json: no such file; give a directory"):
        load_hugging_face(tmp_path)


def test_a_pickle_is_refused_with_the_reason(saved) -> None:
    _, directory = saved("llama")
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: is a pickle, which can run any"):
        load_hugging_face(directory)


def test_missing_unknown_and_misshapen_tensors_are_named(saved) -> None:
    _, directory = saved("llama")
    path, name = directory / "model.safetensors", "model.layers.1.mlp.up_proj.weight"
    tensors = load_file(path)
    save_file({key: value for key, value in tensors.items() if key != name}, path)
    with pytest.raises(ValueError, match=rf"tensor {name} is missing"):
        load_hugging_face(directory)
    save_file({**tensors, name: torch.zeros(3, 4)}, path)
    with pytest.raises(ValueError, match=rf"tensor {name} has shape \(3, 4\), but .* \(48, 32\)"):
        load_hugging_face(directory)
    save_file({**tensors, "score.weight": torch.zeros(3, 4)}, path)
    with pytest.raises(ValueError, match=r"tensor score\.weight is unknown"):
        load_hugging_face(directory)


def test_a_truncated_file_is_named(saved) -> None:
    _, directory = saved("llama")
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors: is no whole safetensors file"):
        load_hugging_face(directory)


def test_truncated_and_missing_shards_are_named(tmp_path: Path) -> None:
    make("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"{shard.name}: is no whole safetensors file"):
        load_hugging_face(tmp_path)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{shard.name}: no such file, but"):
        load_hugging_face(tmp_path)
