"""The verb `generate` and `open_run`, on a run directory made on the spot."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from gpt4o_lit.__main__ import main
from gpt4o_lit.commands.generate import read_prompts
from gpt4o_lit.generation import (
    BeamConfig,
    PromptFormat,
    SamplingConfig,
    fill,
    gap_prompt,
    generate,
    search,
)
from gpt4o_lit.interop.run import open_run
from gpt4o_lit.model import (
    PositionConfig,
)
from gpt4o_lit.tokenizer import ByteTokenizer, TrainCharacters
from tests.commands.conftest import MakeRun

tokenizer = ByteTokenizer()
GREEDY = SamplingConfig(max_new_tokens=8, temperature=0)
FLAGS = ["--max_new_tokens", "8", "--temperature", "0"]


@pytest.mark.parametrize("kind", ["rotary", "alibi", "relative", "learned"])
@pytest.mark.parametrize("tied", [True, False])
def test_an_opened_run_is_the_network_that_was_saved(
    kind: str, tied: bool, make_run: MakeRun
) -> None:
    run, net = make_run(position=PositionConfig(kind=kind), tied=tied)  # type: ignore[arg-type]
    opened = open_run(run).transformer
    tokens = torch.arange(20)[None]
    assert torch.equal(opened(tokens), net(tokens))
    assert (opened.head.weight is opened.tokens.weight) == tied
    assert not opened.training


def test_opening_a_run_draws_nothing_at_random(make_run: MakeRun) -> None:
    run, _ = make_run()
    before = torch.get_rng_state()
    open_run(run)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_never_validated_gives_its_last_and_says_so(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = make_run(checkpoint="last")
    assert open_run(run).checkpoint == run / "checkpoints" / "last.ckpt"
    assert main(["generate", str(run), "--prompt", "ab", *FLAGS]) == 0
    assert "no best.ckpt yet" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [[], ["--no-stream"]])
@pytest.mark.parametrize("add_bos", [False, True])
def test_a_prompt_is_shown_with_what_comes_behind_it(
    flags: list[str], add_bos: bool, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run, net = make_run(add_bos=add_bos)
    assert main(["generate", str(run), "--prompt", "ab", *FLAGS, *flags]) == 0
    shown = capsys.readouterr()
    form = PromptFormat(add_bos=add_bos)
    (text,) = generate(net, tokenizer, ["ab"], GREEDY, prompt_format=form)
    assert shown.out == f"ab{text}\n"
    assert "tokens/s" in shown.err


@pytest.mark.parametrize("suffix", ["txt", "jsonl"])
def test_a_file_of_prompts_becomes_a_file_of_answers(
    suffix: str, make_run: MakeRun, tmp_path: Path
) -> None:
    run, net = make_run("encoder_decoder")
    prompts = ["ab", "longer prompt", "x"]
    lines = prompts if suffix == "txt" else [json.dumps({"prompt": p}) for p in prompts]
    source, output = tmp_path / f"prompts.{suffix}", tmp_path / "answers.jsonl"
    source.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    call = ["generate", str(run), "--prompts", str(source), "--output", str(output), *FLAGS]
    assert main([*call, "--batch_size", "2"]) == 0
    answers = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    texts = generate(net, tokenizer, prompts, GREEDY)
    assert answers == [{"prompt": p, "completion": t} for p, t in zip(prompts, texts, strict=True)]


def test_what_is_written_depends_on_the_prompt_and_its_number_alone(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = make_run()
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text("\n".join(["ab"] * 5 + ["a" * 30, "longer"]), encoding="utf-8")
    call = ["generate", str(run), "--prompts", "prompts.txt", "--temperature", "1"]
    written = []
    for size in ("1", "2", "8"):
        assert main([*call, "--batch_size", size, "--output", f"{size}.jsonl"]) == 0
        written.append(Path(f"{size}.jsonl").read_text(encoding="utf-8"))
    assert written[0] == written[1] == written[2]
    assert len({*written[0].splitlines()}) == 7


def test_a_run_of_prefix_lm_reads_its_prompts_both_ways(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, net = make_run(bidirectional_prompt=True)
    source, output = tmp_path / "prompts.txt", tmp_path / "answers.jsonl"
    prompt = "a longer prompt"
    source.write_text(prompt, encoding="utf-8")
    (text,) = generate(
        net, tokenizer, [prompt], GREEDY, prompt_format=PromptFormat(bidirectional=True)
    )
    assert text != generate(net, tokenizer, [prompt], GREEDY)[0]
    assert main(["generate", str(run), "--prompt", prompt, *FLAGS]) == 0
    assert capsys.readouterr().out == f"{prompt}{text}\n"
    call = ["generate", str(run), "--prompts", str(source), "--output", str(output), *FLAGS]
    assert main(call) == 0
    assert json.loads(output.read_text(encoding="utf-8"))["completion"] == text


def test_a_decoder_that_has_learned_to_fills_a_gap(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, net = make_run(fills_gaps=True)
    prompt, output = "ab<mask> c", tmp_path / "answers.jsonl"
    (text,) = generate(net, tokenizer, [gap_prompt(tokenizer, prompt)], GREEDY)
    assert text != generate(net, tokenizer, ["ab"], GREEDY)[0]
    assert main(["generate", str(run), "--prompt", prompt, *FLAGS]) == 0
    assert capsys.readouterr().out == f"ab{text} c\n"
    call = ["generate", str(run), "--prompt", prompt, "--output", str(output), *FLAGS]
    assert main(call) == 0
    line = json.loads(output.read_text(encoding="utf-8"))
    assert line == {"prompt": prompt, "completion": text}
    plain, _ = make_run()
    capsys.readouterr()
    assert main(["generate", str(plain), "--prompt", prompt]) == 2
    assert "has not learned to fill gaps; leave it out, or train" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
def test_beam_search_shows_the_best_and_writes_them_with_their_scores(
    kind: str, make_run: MakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run, net = make_run(kind)
    config = BeamConfig(num_beams=3, num_return=2, max_new_tokens=6, length_penalty=0.5)
    (texts,) = search(net, tokenizer, ["ab"], config)
    flags = ["--num_beams", "3", "--num_return", "2", "--max_new_tokens", "6"]
    call = ["generate", str(run), *flags, "--length_penalty", "0.5"]
    assert main([*call, "--prompt", "ab"]) == 0
    joined = "ab" if kind == "decoder" else ""
    shown = "".join(f"[{score:.3f}] {joined}{text}\n" for text, score in texts)
    assert capsys.readouterr().out == shown
    output = tmp_path / "out.jsonl"
    assert main([*call, "--prompt", "ab", "--output", str(output)]) == 0
    line = json.loads(output.read_text(encoding="utf-8"))
    written = [line, *line["others"]]
    assert [answer["completion"] for answer in written] == [text for text, _ in texts]
    assert [answer["score"] for answer in written] == [score for _, score in texts]


def test_a_draft_changes_no_text_and_tells_what_it_was_worth(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run, _ = make_run()
    call = ["generate", str(run), "--prompt", "ab", *FLAGS]
    assert main(call) == 0
    plain = capsys.readouterr().out
    assert main([*call, "--draft", str(run), "--num_proposed", "3"]) == 0
    shown = capsys.readouterr()
    assert shown.out == plain
    assert re.search(r"100% of \d+ proposed tokens kept, [\d.]+ tokens a pass; ", shown.err)
    assert re.search(r"[\d,]+ tokens/s, [\d.]+x as fast as without", shown.err)
    other = tmp_path / "other"
    shutil.copytree(run, other)
    TrainCharacters().build(["another text"]).save(other / "tokenizer")
    assert main([*call, "--draft", str(other)]) == 2
    assert "has another tokenizer" in capsys.readouterr().err
    assert main([*call[:4], "--draft", str(run), "--num_beams", "2"]) == 2
    assert "--draft is for sampling" in capsys.readouterr().err


def test_a_text_can_be_held_to_a_pattern(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run, _ = make_run()
    call = ["generate", str(run), "--prompt", "ab"]
    assert main([*call, "--regex", "(yes|no)[.]"]) == 0
    assert capsys.readouterr().out in {"abyes.\n", "abno.\n"}
    assert main([*call, "--regex", "(yes|no)[.]", "--max_new_tokens", "2"]) == 0
    assert "1 of 1 texts ended before they matched; raise --max_new" in capsys.readouterr().err
    (tmp_path / "schema.json").write_text('{"enum": [17, 23]}', encoding="utf-8")
    assert main([*call, "--json_schema", str(tmp_path / "schema.json"), "--num_beams", "2"]) == 0
    assert capsys.readouterr().out in {"ab17\n", "ab23\n"}


@pytest.mark.parametrize(("suffix", "line"), [("txt", "ab"), ("jsonl", '{"prompt": "ab"}')])
def test_a_byte_order_mark_is_no_part_of_the_first_prompt(
    suffix: str, line: str, tmp_path: Path
) -> None:
    path = tmp_path / f"prompts.{suffix}"
    path.write_text(f"{line}\n{line}\n", encoding="utf-8-sig")
    assert read_prompts(path) == ["ab", "ab"]


def test_an_encoder_fills_the_masks_of_a_prompt(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run, net = make_run("encoder")
    assert main(["generate", str(run), "--prompt", "a<mask>b"]) == 0
    assert capsys.readouterr().out == fill(net, tokenizer, "a<mask>b") + "\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give either --prompt TEXT or --prompts FILE"),
        (["--prompt", "a" * 40], "more than max_seq_len (32); shorten it"),
        (["--prompt", "a", "--batch_size", "0"], "set it to 8"),
        (["--prompt", "a", "--output", "nowhere/x.jsonl"], "nowhere/x.jsonl"),
        (["--prompts", "bad.jsonl"], 'bad.jsonl:3 is not JSON with a field "prompt"'),
        (["--prompts", "number.jsonl"], "number.jsonl:1 has a prompt (3) that is no text"),
        (["--prompts", "empty.txt"], "holds no prompt"),
        (["--prompt", "a", "--regex", "(a"], "regex cannot be used"),
        (["--prompt", "a", "--json_schema", "emty.txt"], "did you mean empty.txt?"),
        (["--prompt", "a", "--json_schema", "empty.txt"], "json_schema is broken JSON"),
        (["--prompt", "a", "--num_return", "2"], "beam search; give --num_beams too"),
        (["--prompt", "a", "--num_beams", "2", "--top_k", "3"], "is for sampling; leave it or"),
        (["--prompt", "a", "--num_beams", "2", "--num_return", "3"], "raise num_beams"),
        (["--prompts", "latin.txt"], "latin.txt:2 is not UTF-8"),
        (["--prompts", "emty.txt"], "emty.txt does not exist; did you mean empty.txt?"),
    ],
)
def test_a_mistake_is_one_line(
    flags: list[str],
    message: str,
    make_run: MakeRun,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, _ = make_run()
    monkeypatch.chdir(tmp_path)
    Path("bad.jsonl").write_text('{"prompt": "a"}\n\nnonsense\n', encoding="utf-8")
    Path("number.jsonl").write_text('{"prompt": 3}\n', encoding="utf-8")
    Path("empty.txt").write_text("\n", encoding="utf-8")
    Path("latin.txt").write_bytes(b"ab\nna\xefve\n")
    assert main(["generate", str(run), *flags]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""


def test_a_checkpoint_that_does_not_fit_is_refused(make_run: MakeRun) -> None:
    run, net = make_run()
    file = run / "checkpoints" / "best.ckpt"
    state = {f"transformer.{name}": weight for name, weight in net.state_dict().items()}
    state["transformer.strange.weight"] = torch.ones(1)
    config = net.config.to_dict()
    torch.save({"state_dict": state, "transformer_config": config}, file)
    with pytest.raises(ValueError, match=r"1 weights do not fit .* first is strange\.weight"):
        open_run(run)
    torch.save({"state_dict": state}, file)
    with pytest.raises(ValueError, match="has no transformer_config"):
        open_run(run)
    file.write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"best\.ckpt is damaged: .* or it was cut off"):
        open_run(run)


def test_no_run_and_no_checkpoint_are_told_apart(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no run directory"):
        open_run(tmp_path / "nothing")
    run, _ = make_run()
    (run / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(FileNotFoundError, match="no checkpoint yet"):
        open_run(run)


def test_another_engine_writes_the_same(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run, _ = make_run()
    file = tmp_path / "prompts.txt"
    file.write_text("ab\nabc\n", encoding="utf-8")
    call = ["generate", str(run), "--prompts", str(file), "--max_new_tokens", "5"]
    assert main(call) == 0
    written = capsys.readouterr().out
    assert main([*call, "--engine", "onnxruntime"]) == 0
    out, err = capsys.readouterr()
    assert out == written
    assert "ONNX Runtime" in err
    for flag, words in (
        (["--dtype", "bfloat16"], "--dtype is PyTorch's; leave it or --engine out"),
        (["--compile"], "--compile is PyTorch's"),
        (["--num_beams", "2"], "--engine samples alone; leave it or --num_beams out"),
        (["--draft", str(run)], "--engine samples alone; leave it or --draft out"),
    ):
        assert main([*call, "--engine", "onnxruntime", *flag]) == 2
        assert words in capsys.readouterr().err
