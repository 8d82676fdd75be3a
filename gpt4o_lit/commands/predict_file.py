"""`gpt4o-lit predict-file RUN IN OUT`: answer or classify each row of a file, as the run can."""

import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from gpt4o_lit.commands.answerers import Answerer, answerer_of
from gpt4o_lit.commands.run_flags import DTYPES
from gpt4o_lit.corpus.documents import Skips
from gpt4o_lit.corpus.rows import Row, read_rows
from gpt4o_lit.corpus.sources import file_digest
from gpt4o_lit.parse_errors import OneLineParser
from gpt4o_lit.tokenizer.load import nearest_name

WINDOW = 16  # batches that are sorted by length together, and written when all of them are done
EXAMPLE = """examples:
  gpt4o-lit predict-file runs/translate_zh_en/TIME sentences.txt translations.txt
  gpt4o-lit predict-file runs/translate_zh_en/TIME test.tsv out.jsonl --columns en zh --num_beams 4
  gpt4o-lit predict-file runs/translate_zh_en/TIME --text 我吃苹果。"""


def build_parser() -> OneLineParser:
    """The verb's options."""
    parser = OneLineParser(
        "predict-file",
        "Answer each row of a file: translate, summarize, answer, write code, classify. What was "
        "written is gone on from where it was stopped.",
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    add(
        "run",
        metavar="RUN",
        help="made by `fit` of pairs or labelled texts, or compressed",
    )
    add("input", metavar="IN", nargs="?", help=".txt with a source a line, or a table as for `fit`")
    add(
        "output",
        metavar="OUT",
        nargs="?",
        help=".txt: a line each; .jsonl: rows with `output`",
    )
    add("--text", help="one source in place of files; the answer is printed")
    add("--columns", nargs="+", help="of a table without a header line; default: those of the run")
    add("--num_beams", type=int, default=1, help="texts searched side by side; 1: greedy")
    add("--length_penalty", type=float, default=1.0, help="with beams: more favours long texts")
    add("--max_new_tokens", type=int, help="most pieces of an answer; default: as in training")
    add("--batch_size", type=int, default=32, help="sources answered at once")
    add("--checkpoint", choices=("best", "last"), default="best", help="of the run")
    add("--dtype", choices=DTYPES, default="float32", help="of the weights; bfloat16 reads half")
    add("--on_error", choices=("raise", "skip"), default="raise", help="for rows that are faulty")
    return parser


def main(argv: list[str]) -> int:
    """Answer one text, or a file."""
    args = build_parser().parse_args(argv)
    if (args.text is None) == (args.input is None):
        raise ValueError("give either IN and OUT or --text TEXT")
    if args.text is None and args.output is None:
        raise ValueError("OUT is missing; name a .txt or .jsonl file to write to")
    if args.batch_size < 1:
        raise ValueError(f"batch_size ({args.batch_size}) must be at least 1; set it to 32")
    answerer = answerer_of(args)
    if args.text is not None:
        source = answerer.source({answerer.only_column(): args.text})
        (answer,) = answerer.answers([source])
        print("  ".join(str(value) for value in answer.values()))
        return 0
    _File(answerer, args).answer()
    return 0


class _File:
    """Answers a file in order; a part of it that is there already is not made again."""

    def __init__(self, answerer: Answerer, args: Any) -> None:
        self.answerer, self.input, self.output = answerer, Path(args.input), Path(args.output)
        if self.output.suffix not in (".txt", ".jsonl"):
            raise ValueError(f"OUT ({self.output}) must end in .txt or .jsonl; rename it")
        if not self.input.exists():
            raise FileNotFoundError(f"{self.input} does not exist{nearest_name(self.input)}")
        self.columns = args.columns or answerer.columns
        self.skips, self.batch_size = Skips(args.on_error), args.batch_size
        self.part = self.output.with_name(f"{self.output.name}.part")
        self.plan = self.output.with_name(f"{self.output.name}.part.json")
        flags = {k: v for k, v in vars(args).items() if k not in ("batch_size", "output")}
        made_of = [flags, file_digest(args.input), file_digest(answerer.weights)]
        self.identity = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()

    def answer(self) -> None:
        """Write to a file of another name, which takes the right one when all is there."""
        done = self._done()
        rows = self._rows()
        next(islice(rows, done, done), None)
        if done:
            print(f"going on behind row {done:,}")
        window = WINDOW * self.batch_size
        with (
            self.part.open("a", encoding="utf-8") as file,
            tqdm(desc="answering", unit=" rows", initial=done) as bar,
        ):
            while batch := list(islice(rows, window)):
                self._write(batch, file, bar)
        self.part.replace(self.output)
        self.plan.unlink()
        skipped = ", ".join(f"{n} {kind}" for kind, n in sorted(self.skips.counts.items()))
        print(f"{self.output}{f'; left out: {skipped}' if skipped else ''}")

    def _done(self) -> int:
        """Rows that an earlier call with the same flags, input and weights has answered."""
        planned = self.plan.read_text(encoding="utf-8") if self.plan.is_file() else ""
        if planned != self.identity:
            self.part.unlink(missing_ok=True)
            self.plan.write_text(self.identity, encoding="utf-8")
        if not self.part.is_file():
            return 0
        whole = self.part.read_bytes()
        whole = whole[: whole.rfind(b"\n") + 1]  # the last line may be torn
        self.part.write_bytes(whole)
        return whole.count(b"\n")

    def _rows(self) -> Iterator[Row]:
        if self.input.suffix == ".txt":
            return read_rows({self.answerer.only_column(): str(self.input)})
        return read_rows(str(self.input), self.columns, self.skips)

    def _source(self, row: Row) -> Any:
        try:
            return self.answerer.source(row.values)
        except ValueError as error:
            raise ValueError(f"{row.place}: {error}") from error

    def _write(self, rows: list[Row], file: TextIO, bar: Any) -> None:
        sources = [self._source(row) for row in rows]
        turns = sorted(range(len(rows)), key=lambda number: len(sources[number]))
        answers: list[dict[str, Any]] = [{} for _ in rows]
        for start in range(0, len(rows), self.batch_size):
            batch = turns[start : start + self.batch_size]
            found = self.answerer.answers([sources[number] for number in batch])
            for number, answer in zip(batch, found, strict=True):
                answers[number] = answer
            bar.update(len(batch))
        for row, answer in zip(rows, answers, strict=True):
            line = " ".join(answer["output"].splitlines())
            if self.output.suffix == ".jsonl":
                line = json.dumps({**row.values, **answer}, ensure_ascii=False, default=str)
            file.write(line + "\n")
        file.flush()
