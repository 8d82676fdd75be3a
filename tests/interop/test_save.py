"""Reading and writing are inverses, and Hugging Face opens what we write."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from gpt4o_lit.interop import load_hugging_face, open_hugging_face, save_hugging_face
from gpt4o_lit.model import (
    AttentionConfig,
    FeedForwardConfig,
    NormConfig,
    PositionConfig,
    StackConfig,
    Transformer,
    TransformerConfig,
)
from gpt4o_lit.tokenizer import ByteTokenizer

from .tiny_hugging_face import MODELS, PAIRS, make

ATTENTION = AttentionConfig(num_heads=4, num_kv_heads=2)


def config_of(vocab_size: int = 61, **decoder: object) -> TransformerConfig:
    """A tiny decoder."""
    stack = {"num_layers": 1, "dim": 32, "attention": ATTENTION, **decoder}
    return TransformerConfig(decoder=StackConfig(**stack), vocab_size=vocab_size, max_seq_len=64)


def auto_class(directory: Path) -> type:
    """The Auto class for the architecture that a config.json names."""
    name = json.loads((directory / "config.json").read_text())["architectures"][0]
    if name.endswith("ForMaskedLM"):
        return transformers.AutoModelForMaskedLM
    pair = name.startswith(("T5", "Marian"))
    return transformers.AutoModelForSeq2SeqLM if pair else transformers.AutoModelForCausalLM


def logits_of(model: torch.nn.Module, pair: bool) -> Tensor:
    """Logits of a model of theirs for fixed random tokens."""
    torch.manual_seed(5)
    tokens_BT = torch.randint(60, (2, 12))
    inputs = {"input_ids": tokens_BT}
    if pair:
        inputs["decoder_input_ids"] = tokens_BT.flip(1)
    with torch.no_grad():
        logits: Tensor = model.eval()(**inputs).logits
    return logits


def assert_equal_states(ours: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    assert ours.keys() == others.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, others[name]), name


@pytest.mark.parametrize("name", MODELS)
def test_save_after_load_is_the_identity(name: str, saved, tmp_path: Path) -> None:
    _, directory = saved(name)
    family = json.loads((directory / "config.json").read_text())["model_type"]
    config, state = load_hugging_face(directory)
    save_hugging_face(open_hugging_face(directory), tmp_path / "ours", family=family)
    config_again, state_again = load_hugging_face(tmp_path / "ours")
    assert config_again == config
    assert_equal_states(state_again, state)


@pytest.mark.parametrize("name", MODELS)
def test_hugging_face_computes_the_same_from_our_export(name: str, saved, tmp_path: Path) -> None:
    model, directory = saved(name)
    save_hugging_face(open_hugging_face(directory), tmp_path / "ours")
    again, report = auto_class(tmp_path / "ours").from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not report["unexpected_keys"]
    assert set(report["missing_keys"]) <= {"cls.predictions.bias"}  # unused where untied
    pair = name in PAIRS
    torch.testing.assert_close(logits_of(again, pair), logits_of(model, pair), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["llama", "t5", "bert"])
def test_shards_hold_what_one_file_holds(name: str, tmp_path: Path) -> None:
    model = make(name)
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    config, state = load_hugging_face(tmp_path / "one")
    config_many, state_many = load_hugging_face(tmp_path / "many")
    assert config_many == config
    assert_equal_states(state_many, state)


@pytest.mark.parametrize("name", ["gpt2", "llama-tied-bias", "qwen2"])
def test_names_without_their_prefix_are_understood(name: str, saved, tmp_path: Path) -> None:
    model, directory = saved(name)
    model.base_model.save_pretrained(tmp_path / "base")
    _, state = load_hugging_face(directory)
    _, bare = load_hugging_face(tmp_path / "base")
    assert_equal_states(bare, state)


def test_the_first_bert_files_are_understood(saved) -> None:
    _, directory = saved("bert")
    config, state = load_hugging_face(directory)
    path = directory / "model.safetensors"
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in load_file(path).items()
    }
    old |= {"bert.pooler.dense.weight": torch.zeros(32, 32)}
    old |= {"cls.seq_relationship.weight": torch.zeros(2, 32)}
    save_file(old, path)
    config_old, state_old = load_hugging_face(directory)
    assert config_old == config
    assert_equal_states(state_old, state)


@pytest.mark.parametrize("name", ["t5-gated", "t5-gated-untied"])
def test_version_4_configs_of_t5_are_understood(name: str, saved) -> None:
    _, directory = saved(name)
    expected, state = load_hugging_face(directory)
    path = directory / "config.json"
    values = json.loads(path.read_text()) | {"tie_word_embeddings": False}
    for field in ("scale_decoder_outputs", "is_gated_act", "dense_act_fn"):
        del values[field]
    path.write_text(json.dumps(values))
    config, state_again = load_hugging_face(directory)
    assert config == expected
    assert config.tie_embeddings == (name == "t5-gated")
    assert config.head_scale is None
    assert_equal_states(state_again, state)


def test_tensors_keep_the_dtype_of_the_file(tmp_path: Path) -> None:
    make("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    _, state = load_hugging_face(tmp_path)
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}


FAMILIES = {
    "llama": config_of(),
    "mistral": config_of(attention=AttentionConfig(num_heads=4, window=8)),
    "qwen2": config_of(attention=AttentionConfig(num_heads=4, qkv_bias=True)),
    "qwen3": config_of(attention=AttentionConfig(num_heads=4, qk_norm=True)),
    "gpt2": config_of(
        attention=AttentionConfig(num_heads=4, qkv_bias=True, output_bias=True),
        feed_forward=FeedForwardConfig(activation="gelu_tanh", bias=True),
        norm=NormConfig(kind="layer"),
        position=PositionConfig(kind="learned"),
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_our_own_models_become_the_family_that_carries_them(family: str, tmp_path: Path) -> None:
    transformer = Transformer(FAMILIES[family]).eval()
    save_hugging_face(transformer, tmp_path / "ours", tokenizer=None)
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["model_type"] == family
    theirs = auto_class(tmp_path / "ours").from_pretrained(tmp_path / "ours")
    tokens_BT = torch.randint(61, (2, 20))
    expected = theirs(input_ids=tokens_BT).logits
    torch.testing.assert_close(transformer(tokens_BT), expected, atol=1e-5, rtol=0)


BIASED = AttentionConfig(num_heads=4, qkv_bias=True, output_bias=True)


def post_norm(kind: str, **fields: object) -> StackConfig:
    """A tiny stack of the first Transformer's form."""
    return StackConfig(
        num_layers=2,
        dim=32,
        attention=BIASED,
        feed_forward=FeedForwardConfig(activation="gelu", bias=True),
        norm=NormConfig(kind="layer", placement="post"),
        position=PositionConfig(kind=kind),
        **fields,
    )


def relative() -> StackConfig:
    """A tiny stack of T5."""
    return StackConfig(
        num_layers=2,
        dim=32,
        attention=AttentionConfig(num_heads=4, scale=1.0),
        feed_forward=FeedForwardConfig(activation="geglu_tanh"),
        position=PositionConfig(kind="relative"),
    )


SIZES = {"vocab_size": ByteTokenizer().vocab_size, "max_seq_len": 64}
WITH_ENCODERS = {
    "bert": TransformerConfig(
        encoder=post_norm("learned", num_token_types=2, embedding_norm=True),
        head_transform=True,
        head_bias=True,
        **SIZES,
    ),
    "t5": TransformerConfig(encoder=relative(), decoder=relative(), tie_embeddings=False, **SIZES),
    "marian": TransformerConfig(
        encoder=post_norm("sinusoidal"), decoder=post_norm("sinusoidal"), head_bias=True, **SIZES
    ),
}


@pytest.mark.parametrize("family", WITH_ENCODERS)
@torch.no_grad()
def test_our_own_encoders_become_the_family_that_carries_them(family: str, tmp_path: Path) -> None:
    transformer, tokenizer = Transformer(WITH_ENCODERS[family]).eval(), ByteTokenizer()
    save_hugging_face(transformer, tmp_path / "ours", tokenizer=tokenizer)
    theirs = auto_class(tmp_path / "ours").from_pretrained(tmp_path / "ours")
    assert theirs.config.model_type == family
    if family != "bert":
        assert theirs.config.decoder_start_token_id == tokenizer.pad_id
    torch.manual_seed(5)
    tokens_BT = torch.randint(60, (2, 12))
    source = {} if family == "bert" else {"source_BS": tokens_BT}
    ours = transformer(tokens_BT if family == "bert" else tokens_BT.flip(1), **source)
    expected = logits_of(theirs, pair=family != "bert")
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_the_tokenizer_gives_the_ids_that_generation_needs(tmp_path: Path) -> None:
    tokenizer = ByteTokenizer()
    config = config_of(vocab_size=tokenizer.vocab_size)
    save_hugging_face(Transformer(config), tmp_path / "ours", tokenizer=tokenizer)
    theirs = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
    ids = (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id)
    assert ids == (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id)


LOSSES = {
    "decoder.position.kind": config_of(position=PositionConfig(kind="alibi")),
    "decoder.norm.placement": config_of(norm=NormConfig(placement="post")),
    "decoder.feed_forward.activation": config_of(
        feed_forward=FeedForwardConfig(activation="relu", ffn_dim=48)
    ),
    "decoder.scale_embedding": config_of(scale_embedding=True),
}


@pytest.mark.parametrize("path", LOSSES)
def test_what_no_family_carries_is_refused_by_name(path: str, tmp_path: Path) -> None:
    transformer = Transformer(LOSSES[path])
    with pytest.raises(ValueError, match=rf"cannot carry .*{path} \(.*, only"):
        save_hugging_face(transformer, tmp_path / "ours", family="llama")
    assert not (tmp_path / "ours").exists()


def test_a_family_with_other_stacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"family \(t5\) has decoder and encoder, but"):
        save_hugging_face(Transformer(config_of()), tmp_path / "ours", family="t5")
    with pytest.raises(ValueError, match=r"family \(opt\) is unsupported; supported: gpt2"):
        save_hugging_face(Transformer(config_of()), tmp_path / "ours", family="opt")
    assert not (tmp_path / "ours").exists()


def test_a_model_that_is_there_is_never_overwritten(saved) -> None:
    _, directory = saved("llama")
    with pytest.raises(FileExistsError, match=r"config\.json: exists already; choose another"):
        save_hugging_face(Transformer(config_of()), directory)
