"""A GGUF file read by transformers' own reader computes what the network does, by family."""

from pathlib import Path

import pytest
import torch

from gpt4o_lit.interop import open_hugging_face
from gpt4o_lit.interop.gguf import export_gguf
from gpt4o_lit.interop.run import OpenedRun
from gpt4o_lit.tokenizer import ByteTokenizer, TrainSentencePiece
from tests.interop.tiny_hugging_face import make

pytest.importorskip("gguf", reason="the extra `gguf` is not installed")


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gpt2"])
def test_each_family_computes_the_same(name: str, tmp_path: Path) -> None:
    make(name).save_pretrained(tmp_path / "theirs")
    net = open_hugging_face(tmp_path / "theirs")
    run = OpenedRun(net, ByteTokenizer(), Path("best.ckpt"), tmp_path, False, False)
    compared = export_gguf(run, tmp_path / "out")
    assert compared.largest > 0.01
    assert compared.difference < 1e-5


@pytest.mark.parametrize(("model_type", "kind"), [("unigram", "t5"), ("bpe", "llama")])
def test_pieces_keep_their_scores_and_kinds(model_type: str, kind: str, tmp_path: Path) -> None:
    import gguf

    texts = [f"the cat number {n} saw {n * n} dogs" for n in range(300)]
    tokenizer = TrainSentencePiece(vocab_size=500, model_type=model_type).build(texts)  # type: ignore[arg-type]
    model = make("llama")
    model.resize_token_embeddings(tokenizer.vocab_size, mean_resizing=False)
    model.save_pretrained(tmp_path / "theirs")
    net = open_hugging_face(tmp_path / "theirs")
    run = OpenedRun(net, tokenizer, Path("best.ckpt"), tmp_path, True, False)
    assert export_gguf(run, tmp_path / "out", torch.float16).is_equal
    reader = gguf.GGUFReader(tmp_path / "out" / "model.gguf")

    def told(key: str) -> object:
        return reader.get_field(f"tokenizer.ggml.{key}").contents()

    assert told("model") == kind
    assert told("add_bos_token") is True
    assert told("tokens") == [tokenizer.piece(id) for id in range(tokenizer.vocab_size)]
    kinds, scores = told("token_type"), told("scores")
    processor = tokenizer.processor  # type: ignore[attr-defined]
    for id in range(tokenizer.num_pieces):  # type: ignore[attr-defined]
        assert scores[id] == pytest.approx(processor.get_score(id))  # type: ignore[index]
        assert (kinds[id] == 6) == processor.is_byte(id)  # type: ignore[index]
        assert (kinds[id] == 3) == processor.is_control(id)  # type: ignore[index]
