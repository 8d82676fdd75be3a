"""The verb `export`: what it writes, others open; a difference ends with exit code 1."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from gpt4o_lit.__main__ import main
from gpt4o_lit.interop import export
from gpt4o_lit.interop.run import open_run
from gpt4o_lit.model import PositionConfig, Transformer
from gpt4o_lit.tokenizer import ByteTokenizer
from tests.commands.conftest import MakeRun


@torch.no_grad()
def test_transformers_opens_a_run_and_writes_the_same(
    make_run: MakeRun,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, net = make_run()
    out = tmp_path / "out"
    assert main(["export", str(run), str(out)]) == 0
    shown = capsys.readouterr().out
    assert f"opened by transformers {transformers.__version__}: logits differ by at most" in shown
    model = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    ids = tokenizer("hello", return_tensors="pt")["input_ids"]
    torch.testing.assert_close(model(ids).logits, net(ids), atol=1e-5, rtol=0)
    assert model.config.eos_token_id == tokenizer.eos_token_id == ByteTokenizer.eos_id


@torch.no_grad()
def test_weights_can_be_rounded_and_spread_over_files(
    make_run: MakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, net = make_run(tied=False)
    monkeypatch.setattr("gpt4o_lit.commands.export.MB", 4000)
    out = tmp_path / "out"
    assert main(["export", str(run), str(out), "--dtype", "bfloat16", "--max_shard_mb", "4"]) == 0
    index = json.loads((out / "model.safetensors.index.json").read_text(encoding="utf-8"))
    files = sorted(out.glob("*.safetensors"))
    assert [path.name for path in files] == sorted(set(index["weight_map"].values()))
    assert len(files) > 2
    tensors = {name: tensor for path in files for name, tensor in load_file(path).items()}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert index["metadata"]["total_size"] == sum(t.numel() * 2 for t in tensors.values())
    model = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    ids = torch.tensor([[1, 5, 9]])
    assert 0 < (model(ids).logits - net(ids)).abs().max() < 0.1


@torch.no_grad()
@pytest.mark.parametrize("kind", ["decoder", "encoder", "encoder_decoder"])
def test_a_program_computes_the_same_for_any_batch_and_length(
    kind: str,
    make_run: MakeRun,
    tmp_path: Path,
) -> None:
    run, net = make_run(kind)
    assert main(["export", str(run), str(tmp_path / "out"), "--format", "torch"]) == 0
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    for rows, length in ((1, 31), (5, 2)):
        inputs = {"tokens_BT": torch.randint(256, (rows, length))}
        if kind == "encoder_decoder":
            inputs["source_BS"] = torch.randint(256, (rows, length + 1))
        torch.testing.assert_close(program(**inputs), net(**inputs), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "position", "attention"),
    [
        ("decoder", "rotary", {"num_kv_heads": 1, "window": 4}),
        ("decoder", "relative", {}),
        ("encoder", "alibi", {}),
        ("encoder_decoder", "learned", {}),
    ],
)
def test_onnx_runtime_computes_the_same_with_a_cache(
    kind: str,
    position: str,
    attention: dict[str, int],
    make_run: MakeRun,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    run, net = make_run(kind, position=PositionConfig(kind=position), attention=attention)  # type: ignore[arg-type]
    out = tmp_path / "out"
    assert main(["export", str(run), str(out), "--format", "onnx"]) == 0
    assert "opened by onnxruntime" in capsys.readouterr().out
    assert (out / "tokenizer.json").exists()
    session = runtime.InferenceSession(out / "model.onnx")
    tokens = torch.randint(256, (5, 9))
    given, source = {"tokens": tokens[:, :3].numpy()}, None
    if kind == "encoder":
        given["tokens"] = tokens.numpy()
        (logits,) = session.run(None, given)
        torch.testing.assert_close(torch.from_numpy(logits), net(tokens), atol=1e-4, rtol=0)
        return
    if kind == "encoder_decoder":
        source = torch.randint(256, (5, 11))
        encoder = runtime.InferenceSession(out / "encoder.onnx")
        names = [output.name for output in encoder.get_outputs()]
        given |= zip(names, encoder.run(None, {"source": source.numpy()}), strict=True)
    expected = net(tokens, source_BS=source)
    heads = attention.get("num_kv_heads", 2)
    kept = [np.zeros((5, 0, heads, 8), dtype=np.float32)] * 4
    found = []
    for part in (tokens[:, :1], tokens[:, 1:2], tokens[:, 2:]):
        given["tokens"] = part.numpy()
        names = [f"past_{each}_{layer}" for layer in range(2) for each in ("key", "value")]
        logits, *kept = session.run(None, given | dict(zip(names, kept, strict=True)))
        found.append(torch.from_numpy(logits))
    torch.testing.assert_close(torch.cat(found, dim=1), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_gguf_holds_weights_and_tokenizer(
    dtype: str, make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gguf = pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
    run, _ = make_run()
    out = tmp_path / "out"
    assert main(["export", str(run), str(out), "--format", "gguf", "--dtype", dtype]) == 0
    assert "opened by transformers" in capsys.readouterr().out
    reader = gguf.GGUFReader(out / "model.gguf")
    tokens = reader.get_field("tokenizer.ggml.tokens").contents()
    tokenizer = ByteTokenizer()
    assert [tokens[byte] for byte in b"a!Z"] == ["a", "!", "Z"]
    assert tokens[ord(" ")] == "\u0120"  # as GPT-2 writes it
    assert tokens[256:] == [tokenizer.piece(id) for id in range(256, tokenizer.vocab_size)]
    assert reader.get_field("tokenizer.ggml.eos_token_id").contents() == tokenizer.eos_id
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    matrix = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[dtype]
    assert kinds["blk.0.attn_q.weight"] == kinds["token_embd.weight"] == matrix
    assert kinds["output_norm.weight"] == "F32"


@pytest.mark.parametrize(
    ("kind", "position", "message"),
    [
        ("encoder", "rotary", "gguf carries decoders alone"),
        ("decoder", "alibi", "cannot carry"),
    ],
)
def test_what_gguf_cannot_carry_is_named(
    kind: str,
    position: str,
    message: str,
    make_run: MakeRun,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
    run, _ = make_run(kind, position=PositionConfig(kind=position))  # type: ignore[arg-type]
    assert main(["export", str(run), str(tmp_path / "out"), "--format", "gguf"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_difference_is_told_and_ends_with_1(
    make_run: MakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, _ = make_run()
    whole = export.save_hugging_face

    def broken(transformer: Transformer, *args: object, **options: object) -> object:
        with torch.no_grad():
            transformer.tokens.weight[7] += 1.0
        saved = whole(transformer, *args, **options)  # type: ignore[arg-type]
        with torch.no_grad():
            transformer.tokens.weight[7] -= 1.0
        return saved

    monkeypatch.setattr(export, "save_hugging_face", broken)
    assert main(["export", str(run), str(tmp_path / "out")]) == 1
    assert "does not compute what the run does" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--format", "torch", "--dtype", "bfloat16"],
            "--dtype is for --format hf or compressed-tensors or gguf",
        ),
        (["--family", "t5"], "choose another family"),
        (["--family", "lama"], "family (lama) is unsupported"),
        (["--max_shard_mb", "0"], "must be at least 1"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    flags: list[str],
    message: str,
    make_run: MakeRun,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, _ = make_run()
    assert main(["export", str(run), str(tmp_path / "out"), *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(
    make_run: MakeRun,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, _ = make_run()
    assert main(["export", str(run), str(run)]) == 2
    assert "is not empty; give a new directory" in capsys.readouterr().err
    assert open_run(run).checkpoint.exists()
