"""Other engines give what the network gives, as far as they round alike."""

import importlib.util
from pathlib import Path

import onnx
import pytest
import torch
import transformers

from gpt4o_lit.compression import Formats, round_
from gpt4o_lit.generation import SamplingConfig, decode, generate, stream
from gpt4o_lit.interop import onnx_numbers, open_hugging_face
from gpt4o_lit.interop.engines import FILES, MADE_OF, open_engine
from gpt4o_lit.interop.export import rounded
from gpt4o_lit.interop.onnx import GRAPH, export_onnx
from gpt4o_lit.interop.run import OpenedRun
from gpt4o_lit.model.weight_format import WeightFormat
from gpt4o_lit.tokenizer import ByteTokenizer, TrainSentencePiece
from tests.interop.tiny_hugging_face import SIZES, make

LINES = [f"the cat number {n} saw {n * n} dogs" for n in range(300)]
GREEDY = SamplingConfig(temperature=0.0, max_new_tokens=12)
INT4, INT8 = WeightFormat(bits=4, group_size=32), WeightFormat(rounds_inputs=True)
BUILT = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None,
    reason="llama-cpp-python is not installed; it is built from source: pip install it",
)
ENGINES = [pytest.param(name, marks=BUILT if name == "llamacpp" else ()) for name in FILES]


def run_of(folder: Path, format: WeightFormat | None = None) -> OpenedRun:
    """A tiny network, quantized where a format is given, as an opened run."""
    tokenizer = TrainSentencePiece(vocab_size=500, model_type="bpe").build(LINES)
    sizes = {"vocab_size": tokenizer.vocab_size, "hidden_size": 64, "intermediate_size": 96}
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES | sizes))
    theirs.save_pretrained(folder / "theirs")
    net = open_hugging_face(folder / "theirs")
    if format is not None:
        round_(net, Formats(format=format).of(net))
    checkpoint = folder / "best.ckpt"
    checkpoint.write_bytes(b"of this run")
    return OpenedRun(net, tokenizer, checkpoint, folder, False, False)


@pytest.mark.slow
@pytest.mark.parametrize("format", [None, INT4, INT8], ids=str)
@pytest.mark.parametrize("name", ENGINES)
@torch.no_grad()
def test_scores_are_those_of_the_network(
    name: str, format: WeightFormat | None, tmp_path: Path
) -> None:
    run = run_of(tmp_path, format)
    engine, ids = open_engine(name, run, tmp_path / name), run.tokenizer.encode(LINES[7])
    logits_TV = rounded(run.transformer, None)(torch.tensor([ids]))[0]
    tolerance = (2e-3 if format is None else 0.06) * float(logits_TV.abs().max())
    for start in (2, len(ids) - 1):  # it starts anew
        found = [engine.read(ids[:start]), *map(engine.write, ids[start:])]
        for scores_V, expected_V in zip(found, logits_TV[start - 1 :], strict=True):
            assert scores_V.shape == expected_V.shape
            torch.testing.assert_close(scores_V, expected_V, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", ENGINES)
def test_text_is_the_same(name: str, tmp_path: Path) -> None:
    run = run_of(tmp_path)
    engine, net, prompt = open_engine(name, run, tmp_path / name), run.transformer, LINES[5]
    (expected,) = generate(net, run.tokenizer, [prompt], GREEDY)
    assert expected
    assert generate(net, run.tokenizer, [prompt], GREEDY, engine=engine) == [expected]
    assert "".join(stream(net, run.tokenizer, prompt, GREEDY, engine=engine)) == expected
    drawn = SamplingConfig(temperature=1.0, max_new_tokens=12, seed=3)
    how = {"first": 2}
    ours, theirs = (
        list(decode(net, run.tokenizer, [prompt], drawn, **how, **each))  # type: ignore[arg-type]
        for each in ({}, {"engine": engine})
    )
    assert ours == theirs


@pytest.mark.slow
def test_graphs_hold_the_whole_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With inputs as they are, nothing but the order of sums is different."""
    monkeypatch.setattr(onnx_numbers, "INT8_INPUTS", 0)
    for format, share in ((INT4, 0.2), (INT8, 0.3)):
        run = run_of(tmp_path, format)
        assert export_onnx(run, tmp_path / "out").difference < 1e-5
        graph = onnx.load(tmp_path / "out" / GRAPH).graph
        stored = sum(len(each.raw_data) for each in graph.initializer)
        floats = sum(4 * weight.numel() for weight in rounded(run.transformer, None).parameters())
        assert stored < share * floats


@pytest.mark.slow
def test_files_are_made_once_and_anew_for_another_checkpoint(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    directory = tmp_path / "engine"
    engine = open_engine("onnxruntime", run, directory)
    with pytest.raises(ValueError, match="one prompt at a time; give it one of the 2"):
        next(decode(run.transformer, run.tokenizer, ["a", "b"], GREEDY, engine=engine))
    before = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    assert directory / MADE_OF in before
    open_engine("onnxruntime", run, directory)
    assert {path: path.stat().st_mtime_ns for path in directory.iterdir()} == before
    run.checkpoint.write_bytes(b"trained for longer")
    open_engine("onnxruntime", run, directory)
    after = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    assert after.keys() == before.keys()
    assert all(after[path] > before[path] for path in before)


def test_what_reads_both_ways_is_refused(tmp_path: Path) -> None:
    make("t5").save_pretrained(tmp_path / "t5")
    net = open_hugging_face(tmp_path / "t5")
    pair = OpenedRun(net, ByteTokenizer(), tmp_path / "best.ckpt", tmp_path, False, False)
    with pytest.raises(ValueError, match="--engine openvino is for decoders that read from left"):
        open_engine("openvino", pair, tmp_path / "made")
