"""The verb `import`: a Hugging Face directory becomes a run that writes what their model writes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from gpt4o_lit.__main__ import main
from gpt4o_lit.interop import save_hugging_face
from gpt4o_lit.interop.run import open_run
from gpt4o_lit.interop.save_tokenizer import save_tokenizer
from gpt4o_lit.model import AttentionConfig, StackConfig, Transformer, TransformerConfig
from gpt4o_lit.tokenizer import ByteTokenizer
from tests.conftest import Saved
from tests.interop.tiny_hugging_face import PAIRS


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3", "t5", "marian"])
@torch.no_grad()
def test_an_imported_run_writes_what_their_model_writes(
    name: str, theirs: Saved, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    source = theirs(name)
    monkeypatch.chdir(tmp_path)
    assert main(["import", str(source), "--name", "mine"]) == 0
    (run,) = Path("runs/mine").iterdir()
    shown = capsys.readouterr().out
    assert f"{run}: {'encoder-decoder' if name in PAIRS else 'decoder'}, " in shown
    assert main(["generate", str(run), "--prompt", "the cat", "--temperature", "0",
                 "--max_new_tokens", "12", "--no-stream"]) == 0  # fmt: skip
    ours = capsys.readouterr().out
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    pair = name in PAIRS
    auto = transformers.AutoModelForSeq2SeqLM if pair else transformers.AutoModelForCausalLM
    model = auto.from_pretrained(source).eval()
    ids = tokenizer("the cat", add_special_tokens=False)["input_ids"]
    given = torch.tensor([[*ids, *([tokenizer.eos_token_id] if pair else [])]])
    model.generation_config.forced_eos_token_id = None  # theirs cuts the last token off for it
    extra = {"decoder_start_token_id": tokenizer.pad_token_id, "use_cache": False} if pair else {}
    made = model.generate(
        given, max_new_tokens=12, do_sample=False, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id or 0, **extra,
    )  # fmt: skip
    assert ours.rstrip("\n") == tokenizer.decode(made[0], skip_special_tokens=True).rstrip("\n")


@torch.no_grad()
def test_an_imported_encoder_fills_masks_between_its_marks(theirs: Saved, tmp_path: Path) -> None:
    source = theirs("bert", 400)
    assert main(["import", str(source), "--run_dir", str(tmp_path / "run")]) == 0
    run = open_run(tmp_path / "run")
    assert run.add_bos
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    assert run.tokenizer.mask_id == tokenizer.mask_token_id
    assert run.tokenizer.bos_id == tokenizer.cls_token_id


@torch.no_grad()
def test_an_import_is_exported_as_it_was(theirs: Saved, tmp_path: Path) -> None:
    source = theirs("llama")
    assert main(["import", str(source), "--run_dir", str(tmp_path / "run")]) == 0
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    auto = transformers.AutoModelForCausalLM.from_pretrained
    before, after = auto(source).state_dict(), auto(tmp_path / "out").state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    tokenizers = [transformers.AutoTokenizer.from_pretrained(p) for p in (source, tmp_path / "out")]
    ids, again = (tokenizer("the cat sat\n  on 春")["input_ids"] for tokenizer in tokenizers)
    assert ids == again


def test_bad_input_is_one_line_and_leaves_no_run(
    theirs: Saved,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    source = theirs("gpt2")
    cut = theirs("gpt2", folder="cut")
    weights = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    small = theirs("gpt2", 61, folder="small")
    bare = theirs("gpt2", folder="bare")
    (bare / "tokenizer.json").unlink()
    pickled = theirs("gpt2", folder="pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    messages = {
        str(cut): "is no whole safetensors file",
        str(small): "the tokenizer has 500 pieces, but the embedding only 61 rows",
        str(bare): "tokenizer.json: no such file, nor tokenizer.model or spiece.model",
        str(pickled): "is a pickle, which can run any code",
        "./nothing": "is no directory; give one that save_pretrained wrote",
        "owner/nothing": "is no directory, and the hub does not give it",
    }
    for name, message in messages.items():
        assert main(["import", name]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not Path("runs").exists()
    shutil.rmtree(source)


MEASURED = """
import resource, sys
from gpt4o_lit.__main__ import main
assert main(["import", sys.argv[1], "--run_dir", sys.argv[2]]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_an_import_holds_one_tensor_at_a_time(tmp_path: Path) -> None:
    """Of 300 MB of weights, the largest tensor of which has 13 MB."""

    def peak(name: str, num_layers: int) -> int:
        stack = StackConfig(num_layers=num_layers, dim=768, attention=AttentionConfig(num_heads=12))
        config = TransformerConfig(decoder=stack, vocab_size=tokenizer.vocab_size, max_seq_len=32)
        source = tmp_path / name
        save_hugging_face(Transformer(config), source, tokenizer=tokenizer)
        save_tokenizer(tokenizer, source, max_seq_len=32)
        command = [sys.executable, "-c", MEASURED, str(source), str(tmp_path / f"{name}_run")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout.splitlines()[-1])

    tokenizer = ByteTokenizer()
    assert peak("deep", 11) - peak("flat", 1) < 60e6
