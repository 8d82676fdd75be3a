"""A GGUF file read by transformers' own reader computes what the network does, by family."""

import functools
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt4o_lit.commands.export import GGUF_FORMATS
from gpt4o_lit.compression import FormatRule, Formats, Targets, round_
from gpt4o_lit.generation import SamplingConfig, decode
from gpt4o_lit.interop import open_hugging_face
from gpt4o_lit.interop.gguf import export_gguf
from gpt4o_lit.interop.llama_cpp import LlamaCpp
from gpt4o_lit.interop.run import OpenedRun
from gpt4o_lit.model.quantized import quantized_weights
from gpt4o_lit.model.weight_format import WeightFormat
from gpt4o_lit.tokenizer import Bytes, ByteTokenizer, TrainCharacters, TrainSentencePiece
from gpt4o_lit.tokenizer.sentence_piece import SPACE
from tests.interop.tiny_hugging_face import make

LINES = [f"the cat number {n} saw {n * n} dogs" for n in range(300)]
GREEDY = SamplingConfig(temperature=0.0, max_new_tokens=20)
pytest.importorskip("gguf", reason="the extra `gguf` is not installed")


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gpt2"])
def test_each_family_computes_the_same(name: str, tmp_path: Path) -> None:
    make(name).save_pretrained(tmp_path / "theirs")
    net = open_hugging_face(tmp_path / "theirs")
    run = OpenedRun(net, ByteTokenizer(), Path("best.ckpt"), tmp_path, False, False)
    compared, *_ = export_gguf(run, tmp_path / "out")
    assert compared.largest > 0.01
    assert compared.difference < 1e-5


@pytest.mark.parametrize("format", [WeightFormat(), *GGUF_FORMATS.values()], ids=str)
@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2"])
def test_whole_numbers_are_carried_as_they_are(
    name: str, format: WeightFormat, tmp_path: Path
) -> None:
    make(name).save_pretrained(tmp_path / "theirs")
    net = open_hugging_face(tmp_path / "theirs")
    narrow = FormatRule(targets=Targets(names=("*.down",)), format=None)  # of 48 inputs
    round_(net, Formats(format=format, rules=(narrow,)).of(net))
    run = OpenedRun(net, ByteTokenizer(), Path("best.ckpt"), tmp_path, False, False)
    compared, *_ = export_gguf(run, tmp_path / "out")
    assert compared.difference < 1e-5
    matrices = sum(weight.shape.numel() for weight in quantized_weights(net))
    others = sum(weight.numel() for weight in net.parameters())
    bits = {8: 8.5, 4: 4.5}[format.bits]
    size = (tmp_path / "out/model.gguf").stat().st_size
    assert matrices * bits / 8 < size < matrices * bits / 8 + 4 * others + 60_000


def test_scales_of_other_groups_are_refused(tmp_path: Path) -> None:
    make("llama").save_pretrained(tmp_path / "theirs")
    net = open_hugging_face(tmp_path / "theirs")
    format = WeightFormat(bits=8, group_size=16)
    round_(net, Formats(format=format).of(net))
    run = OpenedRun(net, ByteTokenizer(), Path("best.ckpt"), tmp_path, False, False)
    with pytest.raises(ValueError, match=r"scale for 16 of .* inputs, which must be multiples"):
        export_gguf(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


needs_llama_cpp = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None,
    reason="llama-cpp-python is not installed; it is built from source: pip install it",
)


@needs_llama_cpp
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gpt2"])
@torch.no_grad()
def test_llama_cpp_writes_the_same_greedy_tokens(name: str, tmp_path: Path) -> None:
    tokenizer = TrainSentencePiece(vocab_size=500, model_type="bpe").build(LINES)
    model = make(name)
    model.resize_token_embeddings(tokenizer.vocab_size, mean_resizing=False)
    model.save_pretrained(tmp_path / "theirs")
    net = open_hugging_face(tmp_path / "theirs")
    run = OpenedRun(net, tokenizer, Path("best.ckpt"), tmp_path, False, False)
    assert all(each.is_equal for each in export_gguf(run, tmp_path / "out"))
    theirs = LlamaCpp(tmp_path / "out" / "model.gguf", 64)
    ids = tokenizer.encode(LINES[7])
    assert theirs.encode(LINES[7]) == ids
    assert torch.allclose(theirs.logits(ids), net(torch.tensor([ids]))[0], atol=2e-3)
    if name != "gpt2":  # of which llama.cpp rounds GELU to float16
        written = [id for (id,) in decode(net, tokenizer, [ids], GREEDY) if id is not None]
        assert theirs.greedy(ids, 20)[: len(written)] == written


@needs_llama_cpp
@pytest.mark.parametrize("model_type", ["unigram", "bpe", "char", "bytes"])
@given(text=st.text(st.sampled_from("the cat saw 0123.,\n\té🙂春眠 "), max_size=30))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_llama_cpp_cuts_text_alike(model_type: str, text: str, cutters: Any) -> None:
    ours, theirs = cutters(model_type)
    found, expected = theirs.encode(text), ours.encode(text)
    if model_type == "unigram":  # another order of the same pieces is as likely
        found, expected = sorted(found), sorted(expected)
    assert found == expected


@pytest.fixture(scope="module")
def cutters(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @functools.cache
    def pair(model_type: Any) -> Any:
        folder = tmp_path_factory.mktemp(model_type)
        recipes: dict[str, Any] = {"char": TrainCharacters(), "bytes": Bytes()}
        trained = TrainSentencePiece(vocab_size=500, model_type=model_type)
        tokenizer = recipes.get(model_type, trained).build(LINES)
        model = make("llama")
        model.resize_token_embeddings(tokenizer.vocab_size, mean_resizing=False)
        model.save_pretrained(folder / "theirs")
        net = open_hugging_face(folder / "theirs")
        export_gguf(OpenedRun(net, tokenizer, Path("a.ckpt"), folder, False, False), folder / "out")
        return tokenizer, LlamaCpp(folder / "out" / "model.gguf", 64)

    return pair


@pytest.mark.parametrize(("model_type", "kind"), [("unigram", "plamo2"), ("bpe", "llama")])
def test_pieces_keep_their_scores_and_kinds(model_type: str, kind: str, tmp_path: Path) -> None:
    import gguf

    tokenizer = TrainSentencePiece(vocab_size=500, model_type=model_type).build(LINES)  # type: ignore[arg-type]
    model = make("llama")
    model.resize_token_embeddings(tokenizer.vocab_size, mean_resizing=False)
    model.save_pretrained(tmp_path / "theirs")
    net = open_hugging_face(tmp_path / "theirs")
    run = OpenedRun(net, tokenizer, Path("best.ckpt"), tmp_path, True, False)
    assert all(each.is_equal for each in export_gguf(run, tmp_path / "out", torch.float16))
    reader = gguf.GGUFReader(tmp_path / "out" / "model.gguf")

    def told(key: str) -> object:
        return reader.get_field(f"tokenizer.ggml.{key}").contents()

    assert told("model") == kind
    assert told("add_bos_token") is True
    pieces = [tokenizer.piece(id) for id in range(tokenizer.vocab_size)]
    spaced = [piece.replace(SPACE, " ") for piece in pieces]
    assert told("tokens") == (spaced if kind == "plamo2" else pieces)
    kinds, scores = told("token_type"), told("scores")
    processor = tokenizer.processor  # type: ignore[attr-defined]
    for id in range(tokenizer.num_pieces):  # type: ignore[attr-defined]
        if kinds[id] not in (2, 3):  # type: ignore[index]
            assert scores[id] == pytest.approx(processor.get_score(id))  # type: ignore[index]
        assert (kinds[id] == 6) == processor.is_byte(id)  # type: ignore[index]
        assert (kinds[id] == 3) == processor.is_control(id)  # type: ignore[index]


@pytest.mark.parametrize(
    ("recipe", "match"),
    [
        (TrainSentencePiece(vocab_size=500, normalization="nfkc"), "a normalisation of text"),
        (TrainSentencePiece(vocab_size=300, model_type="bpe", byte_fallback=False), "no bytes"),
    ],
)
def test_tokenizers_that_llama_cpp_lacks_are_refused(
    recipe: Any, match: str, tmp_path: Path
) -> None:
    make("llama").save_pretrained(tmp_path / "theirs")
    net = open_hugging_face(tmp_path / "theirs")
    run = OpenedRun(net, recipe.build(LINES), Path("best.ckpt"), tmp_path, False, False)
    with pytest.raises(ValueError, match=match):
        export_gguf(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
