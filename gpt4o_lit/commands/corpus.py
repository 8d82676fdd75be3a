"""`gpt4o-lit corpus`: tokenize text into memory-mapped shards and say what came of it."""

import argparse
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from gpt4o_lit.corpus import Corpus, CorpusConfig, prepare
from gpt4o_lit.parse_errors import explain
from gpt4o_lit.tokenizer import Bytes, TokenizerRecipe

LISTS = ("sources", "valid_sources", "test_sources")


def main(argv: list[str]) -> int:
    """Build or check the corpus and print its table."""
    parser = build_parser()
    try:
        args = parser.parse_args(argv)
    except argparse.ArgumentError as error:
        known = [action.dest for action in parser._actions]
        raise ValueError(explain(str(error), known)) from error
    if args.verify:
        corpus = Corpus.open(args.output)
        corpus.verify()
    else:
        config, recipe = _instantiate(args)
        corpus = prepare(
            config, recipe, args.output, num_workers=args.num_workers, progress=not args.quiet
        )
    print(table(corpus.manifest))
    return 0


def build_parser() -> ArgumentParser:
    """The verb's options."""
    parser = ArgumentParser(
        prog="gpt4o-lit corpus",
        description="Tokenize text into memory-mapped shards; goes on where a build was killed.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--output", type=str, required=True, help="Folder of the corpus.")
    parser.add_argument("--sources", type=str, nargs="*", default=[], help=_help("train"))
    parser.add_argument("--valid_sources", type=str, nargs="*", default=[], help=_help("valid"))
    parser.add_argument("--test_sources", type=str, nargs="*", default=[], help=_help("test"))
    parser.add_class_arguments(CorpusConfig, None, skip=set(LISTS))
    parser.add_argument(
        "--tokenizer",
        type=TokenizerRecipe,
        default=Bytes(),
        help="TrainSentencePiece, TrainCharacters, LoadTokenizer or Bytes, and its options.",
    )
    parser.add_argument(
        "--num_workers",
        type=int | None,
        default=None,
        help="Processes of some 60 MB each. Default: one more than cores, 12 at most.",
    )
    parser.add_argument("--quiet", action="store_true", help="Show no progress.")
    parser.add_argument(
        "--verify", action="store_true", help="Only compare the checksums of what is there."
    )
    return parser


def _help(split: str) -> str:
    return f"Files, folders, globs or python-stdlib for the {split} split."


def _instantiate(args: Namespace) -> tuple[CorpusConfig, TokenizerRecipe]:
    ready: Any = build_parser().instantiate_classes(args)
    fields = CorpusConfig.__dataclass_fields__
    return CorpusConfig(**{name: ready[name] for name in fields}), ready.tokenizer


def table(manifest: dict[str, Any]) -> str:
    """Documents, bytes, tokens and bytes per token of each split; duplicates and skips below."""
    lines = [f"{'split':<6} {'documents':>12} {'bytes':>14} {'tokens':>14} {'bytes/token':>12}"]
    for split, count in manifest["splits"].items():
        ratio = count["bytes"] / count["tokens"] if count["tokens"] else 0.0
        lines.append(
            f"{split:<6} {count['documents']:>12,} {count['bytes']:>14,} {count['tokens']:>14,} "
            f"{ratio:>12.3f}"
        )
    lines.append(f"duplicates left out: {manifest['duplicates']:,}")
    for kind, count in manifest["skips"].items():
        lines.append(f"skipped, {kind}: {count:,}")
    return "\n".join(lines)
