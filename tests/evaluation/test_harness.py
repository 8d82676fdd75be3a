"""Tasks on local rows score the same by our network and by the harness's own on our export."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

pytest.importorskip("lm_eval", reason="the extra `harness` is not installed")

from lm_eval import simple_evaluate

from gpt4o_lit.evaluation.harness import HarnessModel, evaluate, write_tasks
from gpt4o_lit.evaluation.results import Result, of_harness
from gpt4o_lit.generation import PromptFormat
from gpt4o_lit.interop import save_hugging_face
from gpt4o_lit.interop.save_tokenizer import save_tokenizer
from gpt4o_lit.model import (
    AttentionConfig,
    FeedForwardConfig,
    StackConfig,
    Transformer,
    TransformerConfig,
)
from gpt4o_lit.tokenizer import TrainSentencePiece

WORDS = [
    "the",
    "cat",
    "saw",
    "a",
    "dog",
    "near",
    "its",
    "house",
    "while",
    "some",
    "birds",
    "sang",
    "and",
    "every",
    "child",
    "laughed",
]


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def sentence(number: int, length: int = 8) -> str:
    return " ".join(WORDS[(number * 7 + k * k) % len(WORDS)] for k in range(length))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    texts = [sentence(number, 30) for number in range(200)]
    # Bytes that make no sign are shown in other ways by the two, and a random network writes such.
    recipe = TrainSentencePiece(vocab_size=240, model_type="bpe", byte_fallback=False)
    return recipe.build([*texts, "Question: Answer:\n"])


def decoder(tokenizer: Any, dim: int, max_seq_len: int, init_std: float) -> Transformer:
    stack = StackConfig(
        num_layers=2,
        dim=dim,
        attention=AttentionConfig(num_heads=4),
        feed_forward=FeedForwardConfig(),
    )
    size = tokenizer.vocab_size
    config = TransformerConfig(
        decoder=stack, vocab_size=size, max_seq_len=max_seq_len, init_std=init_std
    )
    return Transformer(config).eval()


@pytest.fixture
def net(tokenizer: Any) -> Transformer:
    return decoder(tokenizer, dim=32, max_seq_len=48, init_std=0.3)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    folder = tmp_path / "rows"
    folder.mkdir()

    def write(name: str, lines: list[dict[str, Any]]) -> None:
        opened = gzip.open if name.endswith(".gz") else open
        with opened(folder / name, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    write("lambada.jsonl", [
        {"context": sentence(n, 7 + n), "continuation": WORDS[n]} for n in range(12)
    ])  # fmt: skip
    write("own_lambada.jsonl", [{"text": sentence(n, 12)} for n in range(12)])
    write("piqa.jsonl", [
        {"query": f"Question: {sentence(n)}\n", "choices": [sentence(n + 1), sentence(n + 2, 5)],
         "gold": n % 2}
        for n in range(12)
    ])  # fmt: skip
    write("passive_1.jsonl.gz", [
        {"sentence_good": sentence(n), "sentence_bad": sentence(n + 3)} for n in range(12)
    ])  # fmt: skip
    return folder


def wanted(rows: Path) -> list[str]:
    return [f"lambada_openai={rows / 'lambada.jsonl'}", f"piqa={rows / 'piqa.jsonl'}",
            f"blimp={rows}"]  # fmt: skip


def both(
    net: Transformer,
    tokenizer: Any,
    prompt_format: PromptFormat,
    wishes: list[str],
    folder: Path,
    **options: Any,
) -> tuple[list[Result], list[Result]]:
    """What tasks say of our network, and of our export behind the harness's own model."""
    tasks = write_tasks(wishes, folder / "tasks")
    ours = evaluate(HarnessModel(net, tokenizer, prompt_format, **options), tasks)
    export = folder / "export"
    save_hugging_face(net, export, tokenizer=tokenizer)
    max_seq_len = net.config.max_seq_len
    save_tokenizer(tokenizer, export, max_seq_len=max_seq_len, add_bos=prompt_format.add_bos)
    theirs = simple_evaluate(
        model="hf", model_args=f"pretrained={export},dtype=float32", device="cpu",
        tasks=[str(task) for task in tasks], batch_size=8, bootstrap_iters=0,
    )  # fmt: skip
    return of_harness(ours), of_harness(theirs)


@pytest.mark.slow
@pytest.mark.parametrize("add_bos", [False, True])
def test_our_scores_are_those_of_the_harness_on_our_export(
    add_bos: bool, net: Transformer, tokenizer: Any, rows: Path, tmp_path: Path
) -> None:
    prompt_format = PromptFormat(add_bos=add_bos)
    ours, theirs = both(net, tokenizer, prompt_format, wanted(rows), tmp_path, batch_tokens=100)
    assert [result.task for result in ours] == [
        "lambada_openai", "lambada_openai", "piqa", "piqa", "blimp_passive_1"
    ]  # fmt: skip
    for our, their in zip(ours, theirs, strict=True):
        assert (our.task, our.metric, our.rows) == (their.task, their.metric, their.rows)
        assert our.value == pytest.approx(their.value, rel=1e-5)
        assert our.rows == 12


@pytest.mark.data
@pytest.mark.slow
def test_real_tasks_score_the_same_to_the_digit(real_data: Path, tmp_path: Path) -> None:
    english = (real_data / "wikitext2" / "valid.txt").read_text(encoding="utf-8")
    tokenizer = TrainSentencePiece(vocab_size=2000, model_type="bpe").build(english.splitlines())
    net = decoder(tokenizer, dim=64, max_seq_len=512, init_std=0.2)
    rows = real_data / "eval_visible"
    tasks = [f"{name}={rows / f'{name}.jsonl'}" for name in ("lambada_openai", "piqa", "arc_easy")]
    tasks.append(f"blimp={real_data / 'blimp_visible10'}")
    ours, theirs = both(net, tokenizer, PromptFormat(add_bos=True), tasks, tmp_path)
    assert sum(result.rows for result in ours if result.metric == "acc") > 15_000
    assert [(each.task, each.metric, each.rows) for each in ours] == [
        (each.task, each.metric, each.rows) for each in theirs
    ]
    for our, their in zip(ours, theirs, strict=True):
        alike = pytest.approx(their.value, rel=1e-5) if our.metric == "perplexity" else their.value
        assert our.value == alike, our.task


@pytest.mark.slow
def test_rows_with_the_tasks_own_fields_are_read_as_they_are(rows: Path, tmp_path: Path) -> None:
    (path,) = write_tasks([f"lambada_openai={rows / 'own_lambada.jsonl'}"], tmp_path)
    task = yaml.safe_load(Path(path).read_text())
    assert "doc_to_text" not in task
    assert task["dataset_kwargs"]["data_files"]["test"] == str(rows / "own_lambada.jsonl")


def test_rolling_likelihood_and_writing_are_those_of_the_harness(
    net: Transformer, tokenizer: Any, tmp_path: Path
) -> None:
    export = tmp_path / "export"
    save_hugging_face(net, export, tokenizer=tokenizer)
    save_tokenizer(tokenizer, export, max_seq_len=48)
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    def asked(kind: str, *arguments: Any) -> Instance:
        return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)

    ours = HarnessModel(net, tokenizer)
    theirs = HFLM(pretrained=str(export), dtype="float32", device="cpu")
    texts = [asked("loglikelihood_rolling", sentence(n, 70)) for n in range(3)]
    expected = theirs.loglikelihood_rolling(texts, disable_tqdm=True)
    assert ours.loglikelihood_rolling(texts, disable_tqdm=True) == pytest.approx(expected, rel=1e-5)
    wishes = {"until": ["\n"], "do_sample": False, "max_gen_toks": 8}
    prompts = [asked("generate_until", sentence(n, 40), dict(wishes)) for n in range(3)]
    written = ours.generate_until(prompts, disable_tqdm=True)
    assert [text.strip() for text in written] == [
        text.strip() for text in theirs.generate_until(prompts, disable_tqdm=True)
    ]


def test_evaluating_moves_no_random_generator(
    net: Transformer, tokenizer: Any, rows: Path, tmp_path: Path
) -> None:
    import random

    import numpy as np

    tasks = write_tasks(wanted(rows)[:1], tmp_path / "tasks")
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    evaluate(HarnessModel(net, tokenizer), tasks, limit=2)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


@pytest.mark.parametrize(
    ("wish", "error", "match"),
    [
        ("lambada_opena", ValueError, "no lambada_opena; near are lambada_openai"),
        ("piqa={rows}/piqq.jsonl", FileNotFoundError, "did you mean .*piqa.jsonl"),
        ("arc_easy={rows}", FileNotFoundError, "no file that is called after a task of arc_easy"),
        ("blimp={rows}/piqa.jsonl", ValueError, "blimp is a group"),
        ("piqa={rows}/rows.txt", ValueError, "of no known kind"),
        ("piqa={rows}/broken.jsonl", ValueError, "broken.jsonl:1 is broken JSON"),
    ],
)
def test_mistakes_are_named(
    wish: str, error: type[Exception], match: str, rows: Path, tmp_path: Path
) -> None:
    (rows / "rows.txt").write_text("a")
    (rows / "broken.jsonl").write_text("{")
    with pytest.raises(error, match=match):
        write_tasks([wish.format(rows=rows)], tmp_path / "tasks")


def test_rows_that_are_nowhere_are_told(net: Transformer, tokenizer: Any) -> None:
    with pytest.raises(OSError, match="give NAME=FILE"):
        evaluate(HarnessModel(net, tokenizer), ["piqa"], limit=1)
