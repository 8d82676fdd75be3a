"""`gpt4o-lit evaluate RUN`: how well a run foretells texts, and does on tasks."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path

from gpt4o_lit.commands.run_flags import DTYPES, opened_run, prompt_format_of
from gpt4o_lit.corpus import CorpusConfig, documents_of
from gpt4o_lit.corpus.rows import read_rows
from gpt4o_lit.evaluation.likelihood import BATCH_TOKENS
from gpt4o_lit.evaluation.perplexity import text_quality
from gpt4o_lit.evaluation.programs import (
    STOP,
    Limits,
    Outcome,
    Problem,
    pass_at_k,
    run_program,
)
from gpt4o_lit.evaluation.results import Result, add_to_card, of_harness, of_texts, table
from gpt4o_lit.generation import PromptFormat, SamplingConfig, generate
from gpt4o_lit.interop.run import OpenedRun
from gpt4o_lit.parse_errors import OneLineParser
from gpt4o_lit.run_directory import RunDirectory

ABOUT = (
    "Measure a run on texts, on tasks of EleutherAI's lm-evaluation-harness, and on programs. A "
    "table, the same as JSON in the last line and in RUN/evaluate/TIME/results.json, and lines in "
    "the run's MODEL_CARD.md."
)
FULL = Outcome(False, "its prompt fills the context")
EXAMPLE = """examples:
  gpt4o-lit evaluate runs/quickstart/TIME --text README.md
  gpt4o-lit evaluate runs/wikitext2/TIME --text data/wikitext2/test.txt --stride 64
  gpt4o-lit evaluate runs/quickstart/TIME --tasks lambada_openai=lambada.jsonl piqa=piqa.jsonl
  gpt4o-lit evaluate runs/quickstart/TIME --tasks blimp=data/blimp my_task.yaml
  gpt4o-lit evaluate runs/quickstart/TIME --code HumanEval.jsonl.gz --samples 10 --k 1 10"""


def build_parser() -> OneLineParser:
    """The verb's options."""
    parser = OneLineParser("evaluate", ABOUT, epilog=EXAMPLE)
    add = parser.add_argument
    add("run", metavar="RUN", help="the directory that `fit` or `import` made")
    add(
        "--tasks",
        nargs="+",
        default=[],
        metavar="TASK",
        help="NAME: of the harness, or a YAML file in its form; NAME=FILE: on local rows (.jsonl, "
        ".csv, .parquet) with the task's own fields or llm-foundry's; NAME=FOLDER: the tasks of a "
        "group",
    )
    add(
        "--text",
        nargs="+",
        default=[],
        metavar="SOURCE",
        help="files, folders or globs, as a corpus takes them: perplexity and bits per byte",
    )
    add("--text_field", default="text", help="that holds the text in .jsonl, .csv and .parquet")
    add("--stride", type=int, help="tokens judged per window; default: half a context")
    add("--limit", type=int, help="the first rows of each task alone")
    add("--num_fewshot", type=int, help="examples before each question; default: the task's own")
    code = parser.add_argument_group("programs, run in a process with limits and without network")
    code.add_argument("--code", metavar="FILE", help="problems as HumanEval has them: pass@k")
    code.add_argument("--samples", type=int, default=1, help="answers to each problem")
    code.add_argument("--k", type=int, nargs="+", default=[1], help="of how many one must be right")
    code.add_argument("--temperature", type=float, default=0.8, help="0: one answer, the likeliest")
    code.add_argument("--seconds", type=float, default=5.0, help="that a program may take")
    add("--checkpoint", choices=("best", "last"), default="best")
    add("--dtype", choices=DTYPES, default="float32", help="of the weights")
    add("--batch_tokens", type=int, default=BATCH_TOKENS, help="most tokens read at once")
    return parser


def main(argv: list[str]) -> int:
    """Measure, print and write down."""
    args = build_parser().parse_args(argv)
    if not args.tasks and not args.text and not args.code:
        raise ValueError("give --tasks, --text or --code; `gpt4o-lit evaluate --help` shows how")
    problems = _problems(args) if args.code else []
    for name in ("batch_tokens", "limit"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise ValueError(f"{name} ({value}) must be at least 1; leave it out for the default")
    run = opened_run(args)
    form = prompt_format_of(run)
    results = _on_texts(run, args, form) if args.text else []
    place = RunDirectory(run.path).below("evaluate").path
    if args.tasks:
        results += _on_tasks(run, args, form, place / "tasks")
    if problems:
        results += _on_problems(run, args, form, problems, place / "programs.jsonl")
    print(table(results))
    _write_down(run, results, argv, place)
    return 0


def _on_texts(run: OpenedRun, args: argparse.Namespace, form: PromptFormat) -> list[Result]:
    from tqdm import tqdm

    texts = documents_of(
        CorpusConfig(sources=args.text, text_field=args.text_field, deduplicate=False)
    )
    changed = sum(run.tokenizer.decode(run.tokenizer.encode(text)) != text for text in texts)
    if changed:
        print(
            f"the tokenizer changes {changed} of {len(texts)} texts (normalization, or pieces that "
            "it lacks): the figures are of what it leaves",
            file=sys.stderr,
        )
    with tqdm(desc="windows", unit="", disable=None) as bar:
        quality = text_quality(
            run.transformer, run.tokenizer, texts, stride=args.stride, prompt_format=form,
            batch_tokens=args.batch_tokens, on_batch=bar.update,
        )  # fmt: skip
    return of_texts(" ".join(args.text), len(texts), quality)


def _on_tasks(
    run: OpenedRun, args: argparse.Namespace, form: PromptFormat, folder: Path
) -> list[Result]:
    from gpt4o_lit.evaluation import harness

    model = harness.HarnessModel(run.transformer, run.tokenizer, form, args.batch_tokens)
    tasks = harness.write_tasks(args.tasks, folder)
    found = harness.evaluate(model, tasks, limit=args.limit, num_fewshot=args.num_fewshot)
    return of_harness(found)


def _problems(args: argparse.Namespace) -> list[Problem]:
    """Those of the file, as many as are asked for; mistakes are told before anything is run."""
    problems = [Problem.of(row.values) for row in read_rows(args.code)][: args.limit]
    for k in args.k:
        pass_at_k([0] * len(problems), args.samples, k)
    if args.temperature == 0 and args.samples > 1:
        raise ValueError(
            f"samples ({args.samples}) are all alike at temperature 0; set it to 0.8, or samples "
            "to 1"
        )
    return problems


def _on_problems(
    run: OpenedRun,
    args: argparse.Namespace,
    form: PromptFormat,
    problems: Sequence[Problem],
    file: Path,
) -> list[Result]:
    """pass@k; each program and how it ended is written to the file."""
    from tqdm import tqdm

    room, rights = run.transformer.config.max_seq_len, []
    fits = [len(run.tokenizer.encode(problem.prompt)) < room for problem in problems]
    if not all(fits):
        print(
            f"{fits.count(False)} of {len(problems)} prompts fill the context of {room} pieces and "
            "count as wrong",
            file=sys.stderr,
        )
    with file.open("w", encoding="utf-8") as lines, tqdm(problems, unit=" problems") as bar:
        for number, problem in enumerate(bar):
            answers, ends = [""] * args.samples, [FULL] * args.samples
            if fits[number]:
                config = SamplingConfig(
                    max_new_tokens=256, temperature=args.temperature, stop=STOP, seed=number
                )
                prompts = [problem.prompt] * args.samples
                answers = generate(
                    run.transformer, run.tokenizer, prompts, config, prompt_format=form
                )
                limits = Limits(seconds=args.seconds)
                ends = [run_program(problem.program(answer), limits) for answer in answers]
            rights.append(sum(end.passed for end in ends))
            for answer, end in zip(answers, ends, strict=True):
                told = {"problem": problem.name, "completion": answer, **asdict(end)}
                lines.write(json.dumps(told, ensure_ascii=False) + "\n")
            bar.set_postfix(right=sum(map(bool, rights)))
    name = Path(args.code).name
    return [
        Result(name, len(problems), f"pass@{k}", pass_at_k(rights, args.samples, k)) for k in args.k
    ]


def _write_down(run: OpenedRun, results: Sequence[Result], argv: list[str], place: Path) -> None:
    told = {
        "command": ["gpt4o-lit", "evaluate", *argv],
        "checkpoint": str(run.checkpoint),
        "results": [asdict(result) for result in results],
    }
    file = place / "results.json"
    file.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    card = run.path / "MODEL_CARD.md"
    add_to_card(card, results, run.checkpoint.name, date.today().isoformat())
    print(f"{file}, {card}", file=sys.stderr)
    print(json.dumps(told, ensure_ascii=False))
