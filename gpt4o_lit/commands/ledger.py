"""`gpt4o-lit ledger PARENT CHILD…`: what each change to a network was worth."""

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from gpt4o_lit.corpus import Corpus, CorpusConfig, documents_of
from gpt4o_lit.evaluation.ledger import Plan, measure
from gpt4o_lit.evaluation.ledger_views import table, write
from gpt4o_lit.parse_errors import OneLineParser
from gpt4o_lit.run_directory import RunDirectory

EXAMPLE = """examples:
  gpt4o-lit ledger runs/quickstart/TIME runs/quickstart/TIME/compressed --compile
  gpt4o-lit ledger parent small smaller --text held_out.txt --price_per_hour 0.4"""


def build_parser() -> OneLineParser:
    """The verb's options."""
    parser = OneLineParser(
        "ledger",
        "Measure a parent and what was made of it side by side, in turns: parameters, bytes, "
        "memory, speed, quality, price. A table, JSON and a picture; what was not measured is left "
        "blank.",
        epilog=EXAMPLE,
    )
    plan = Plan()
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="the parent first; runs, and what `compress` wrote")
    add(
        "--text",
        nargs="+",
        default=[],
        metavar="SOURCE",
        help="files, folders or globs to measure quality on; default: the parent's validation text",
    )
    add("--max_texts", type=int, default=200, help="documents of it at most")
    add("--batch_sizes", nargs="+", type=int, default=list(plan.batch_sizes))
    add("--length", type=int, default=plan.length, help="tokens of the prompt")
    add("--new_tokens", type=int, default=plan.new_tokens, help="tokens written behind it")
    add("--rounds", type=int, default=plan.rounds, help="turns of each; the medians count")
    add("--compile", action="store_true", help="measure compiled reading and writing too")
    add("--price_per_hour", type=float, help="of the machine: gives a price per million tokens")
    add("--out", metavar="DIR", help="default: PARENT/ledger/TIME")
    return parser  # fmt: skip


def main(argv: list[str]) -> int:
    """Measure, print, write down and draw."""
    args = build_parser().parse_args(argv)
    runs = [RunDirectory.existing(run) for run in args.runs]
    plan = Plan(
        batch_sizes=tuple(args.batch_sizes),
        length=args.length,
        new_tokens=args.new_tokens,
        rounds=args.rounds,
        compiled=args.compile,
        price_per_hour=args.price_per_hour,
    )
    texts = _texts(args.text, runs[0], args.max_texts)
    if not texts:
        print("no text to measure quality on: give --text", file=sys.stderr)
    entries = measure([run.path for run in runs], plan, texts, told=_tell)
    given = None if args.out is None else RunDirectory.fresh("ledger", args.out)
    out = (given or runs[0].below("ledger")).path
    command = ["gpt4o-lit", "ledger", *argv]
    write(out, entries, plan, {"command": command, "texts": len(texts)})
    print(table(entries))
    print(", ".join(str(path) for path in sorted(out.iterdir())), file=sys.stderr)
    return 0


def _texts(sources: Sequence[str], parent: RunDirectory, most: int) -> list[str]:
    """The documents of the sources, or of the validation split that the parent was measured on."""
    if sources:
        return documents_of(CorpusConfig(sources=list(sources), deduplicate=False))[:most]
    values: Any = yaml.safe_load(parent.config.read_text(encoding="utf-8"))
    directory = values.get("data", {}).get("init_args", {}).get("directory")
    if directory is None or not Path(directory).is_dir():
        return []
    return list(islice(Corpus.open(Path(directory)).texts("valid"), most))


def _tell(words: str) -> None:
    print(f"measuring {words}", file=sys.stderr, flush=True)
