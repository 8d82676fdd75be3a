"""`gpt4o-lit tokenizer`: train one, or measure one on files."""

import argparse
from pathlib import Path

from gpt4o_lit.corpus import CorpusConfig
from gpt4o_lit.corpus.documents import Skips
from gpt4o_lit.corpus.measure import Measure, measure
from gpt4o_lit.corpus.sample import sample_sources
from gpt4o_lit.parse_errors import OneLineParser
from gpt4o_lit.tokenizer import TokenizerRecipe, TrainCharacters, TrainSentencePiece, load_tokenizer


def main(argv: list[str]) -> int:
    """Train with --sources and --output, or measure with --eval."""
    args = build_parser().parse_args(argv)
    if args.eval:
        path, files = args.eval[0], args.eval[1:] or args.sources
        if not files:
            raise ValueError("--eval names no files to measure on; add them behind the tokenizer")
        skips = Skips(args.on_error)
        print(table(measure(load_tokenizer(path), files, skips, args.text_field)))
        for kind, count in sorted(skips.counts.items()):
            print(f"skipped, {kind}: {count:,}")
        return 0
    if not args.sources or not args.output:
        raise ValueError("--sources and --output are missing; give both, or --eval TOKENIZER FILES")
    config = CorpusConfig(
        sources=args.sources, text_field=args.text_field, valid_fraction=0.0, on_error=args.on_error
    )
    recipe = _recipe(args)
    texts = sample_sources(config, recipe.sample_bytes, recipe.seed, progress=not args.quiet)
    tokenizer = recipe.build(texts)
    tokenizer.save(args.output)
    size = sum(len(text.encode()) for text in texts)
    print(f"{Path(args.output)}: {tokenizer.vocab_size} pieces out of {size:,} bytes of text")
    return 0


def _recipe(args: argparse.Namespace) -> TokenizerRecipe:
    if args.model_type == "char":
        usual = build_parser()
        for name in ("vocab_size", "normalization", "character_coverage", "user_defined_symbols"):
            if getattr(args, name) != usual.get_default(name):
                raise ValueError(f"--{name} is not for --model_type char; leave it out")
        return TrainCharacters(sample_bytes=args.sample_bytes, seed=args.seed)
    return TrainSentencePiece(
        vocab_size=args.vocab_size,
        model_type=args.model_type,
        byte_fallback=args.model_type != "word",
        normalization=args.normalization,
        character_coverage=args.character_coverage,
        user_defined_symbols=args.user_defined_symbols,
        sample_bytes=args.sample_bytes,
        seed=args.seed,
    )


def build_parser() -> OneLineParser:
    """The verb's options."""
    usual = TrainSentencePiece()
    rules = ("identity", "nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf")
    parser = OneLineParser(
        "tokenizer",
        "Train a tokenizer, or print its bytes per token and unknown rate on files.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--sources", nargs="+", default=[], help="files, folders, globs or python-stdlib")
    add("--output", help="folder to write the tokenizer to")
    add("--vocab_size", type=int, default=usual.vocab_size, help="pieces in all")
    kinds = ("unigram", "bpe", "char", "word")
    add("--model_type", choices=kinds, default="unigram", help="algorithm; word: whole words alone")
    add("--normalization", choices=rules, default="identity", help="only identity loses nothing")
    add("--character_coverage", type=float, default=1.0, help="share of signs that get a piece")
    add("--user_defined_symbols", nargs="+", default=[], metavar="TEXT", help="always one piece")
    add("--sample_bytes", type=int, default=usual.sample_bytes, help="most text to train on")
    add("--seed", type=int, default=0, help="seed of the sample")
    add("--text_field", default="text", help="field of .jsonl, .csv and .parquet")
    add("--on_error", choices=("raise", "skip"), default="raise", help="for unreadable text")
    add("--quiet", action="store_true", help="show no progress")
    add("--eval", nargs="+", metavar=("TOKENIZER", "FILE"), help="measure this tokenizer on files")
    return parser


def table(rows: list[Measure]) -> str:
    """One line a file."""
    lines = [
        f"{'bytes':>14} {'tokens':>12} {'bytes/token':>12} {'unknown':>9} {'as bytes':>9}  file"
    ]
    for row in rows:
        lines.append(
            f"{row.num_bytes:>14,} {row.num_tokens:>12,} {row.bytes_per_token:>12.3f} "
            f"{row.unknown_rate:>9.3%} {row.byte_rate:>9.3%}  {row.name}"
        )
    return "\n".join(lines)
