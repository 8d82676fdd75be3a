"""Corpus building against SentencePiece's own encoder on one core, and the speed of windows.

    python benchmarks/corpus_speed.py [--sources python-stdlib] [--rounds 3]

Both sides encode the same documents with the same model, turn by turn; medians are printed.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import sentencepiece

from gpt4o_lit.corpus import Corpus, CorpusConfig, documents_of, order, prepare
from gpt4o_lit.corpus.build import num_cores, num_processes
from gpt4o_lit.corpus.sample import sample_sources
from gpt4o_lit.tokenizer import LoadTokenizer, TrainSentencePiece


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def read_all(corpus: Corpus, seq_len: int, batch_size: int) -> None:
    """One shuffled epoch of the training windows."""
    split = corpus.split("train")
    shuffled = order(split.num_windows(seq_len), 0, 0)
    for start in range(0, len(shuffled), batch_size):
        split.windows(shuffled[start : start + batch_size], seq_len)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", nargs="+", default=["python-stdlib"])
    parser.add_argument("--text_field", default="text")
    parser.add_argument("--vocab_size", type=int, default=4096)
    parser.add_argument("--model_type", default="unigram", choices=("unigram", "bpe"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num_workers", type=int, default=num_processes())
    args = parser.parse_args()
    config = CorpusConfig(sources=args.sources, text_field=args.text_field, valid_fraction=0.0)
    trained = TrainSentencePiece(vocab_size=args.vocab_size, model_type=args.model_type)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        trained.build(sample_sources(config, 1_000_000, 0)).save(place / "tokenizer")
        recipe = LoadTokenizer(path=str(place / "tokenizer" / "tokenizer.model"))
        processor = sentencepiece.SentencePieceProcessor(model_file=recipe.path)
        texts = documents_of(config)
        megabytes = sum(len(text.encode()) for text in texts) / 1e6
        theirs, ours = [], []
        for number in range(args.rounds):
            theirs.append(seconds(lambda: processor.encode(texts, num_threads=1)))
            output = place / f"corpus-{number}"
            ours.append(
                seconds(lambda: prepare(config, recipe, output, num_workers=args.num_workers))  # noqa: B023
            )
        corpus = Corpus.open(place / "corpus-0")
        corpus.verify()
        read_all(corpus, 256, 16)
        reading = statistics.median(seconds(lambda: read_all(corpus, 256, 16)) for _ in range(3))
        tokens = corpus.split("train").num_tokens
    one, all_cores = megabytes / statistics.median(theirs), megabytes / statistics.median(ours)
    print(f"{megabytes:.1f} MB, {len(texts)} documents, {args.model_type} {args.vocab_size}")
    print(f"SentencePiece, one core:   {one:7.2f} MB/s")
    print(f"corpus, {args.num_workers} workers:         {all_cores:7.2f} MB/s")
    print(f"ratio to {num_cores()} x one core:     {all_cores / one / num_cores():7.2f}")
    print(f"windows (T=256, B=16):     {tokens / reading / 1e6:7.1f} M tokens/s")


if __name__ == "__main__":
    main()
