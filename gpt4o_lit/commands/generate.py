"""`gpt4o-lit generate RUN`: let a trained run write."""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from gpt4o_lit.commands.run_flags import (
    DTYPES,
    add_sampling_flags,
    opened_engine,
    opened_run,
    prompt_format_of,
    sampling_config,
)
from gpt4o_lit.generation import (
    BeamConfig,
    Constraint,
    Draft,
    Pattern,
    Prompt,
    SamplingConfig,
    decode,
    fill,
    gap_prompt,
    generate,
    search,
    speculate,
    stream,
)
from gpt4o_lit.generation.fill import MASK
from gpt4o_lit.interop.engines import Engine
from gpt4o_lit.interop.run import OpenedRun, open_run
from gpt4o_lit.parse_errors import OneLineParser
from gpt4o_lit.tokenizer.load import nearest_name

Config = SamplingConfig | BeamConfig
TIMED = 32  # tokens written to tell how fast it goes without a draft
EARLY_STOPPING: dict[str, Any] = {"true": True, "false": False, "never": "never"}
EXAMPLE = """examples:
  gpt4o-lit generate runs/quickstart/TIME --prompt "def main():" --temperature 0
  gpt4o-lit generate runs/quickstart/TIME --prompts prompts.txt --output answers.jsonl
  gpt4o-lit generate runs/quickstart/TIME --prompt "import " --num_beams 4 --num_return 4
  gpt4o-lit generate runs/code/TIME --prompt "def double(x):<mask>    return y"
  gpt4o-lit generate runs/encoder_tiny/TIME --prompt "def <mask>(self):" --checkpoint last"""


def build_parser() -> OneLineParser:
    """The verb's options."""
    parser = OneLineParser(
        "generate",
        "Let a trained run write: a decoder goes on with the prompt, or fills the gap where it has "
        "<mask>, an encoder-decoder answers it, an encoder fills in each <mask>.",
        epilog=EXAMPLE,
    )
    parser.add_argument("run", metavar="RUN", help="the directory that `fit` made")
    parser.add_argument("--prompt", help="the text to go on with")
    parser.add_argument("--prompts", help="a file with a prompt a line, or .jsonl with `prompt`")
    parser.add_argument("--output", help="write prompt and completion to this .jsonl file")
    parser.add_argument("--no-stream", action="store_true", help="show the text when it is whole")
    parser.add_argument(
        "--checkpoint",
        choices=("best", "last"),
        default="best",
        help="best by validation; a run that was never validated has its last alone",
    )
    parser.add_argument("--batch_size", type=int, default=8, help="prompts written at once")
    add_sampling_flags(parser)
    parser.add_argument("--regex", help="what the text must match, such as '[0-9]+( kg| g)'")
    parser.add_argument(
        "--json_schema", metavar="FILE", help="write JSON of the schema in this .json file"
    )
    drafts = parser.add_argument_group("speculative decoding: the same text, sooner")
    drafts.add_argument(
        "--draft", metavar="RUN", help="a run of a smaller network with the same tokenizer"
    )
    drafts.add_argument(
        "--num_proposed", type=int, default=4, help="tokens that it proposes at a time"
    )
    drafts.add_argument(
        "--draft_dtype",
        choices=DTYPES,
        help="of its weights; default: as --dtype; bfloat16 proposes sooner, and changes no text",
    )
    beams = parser.add_argument_group("beam search, in place of sampling")
    beams.add_argument("--num_beams", type=int, help="texts written side by side, such as 4")
    beams.add_argument("--num_return", type=int, default=1, help="texts per prompt, best first")
    beams.add_argument(
        "--length_penalty",
        type=float,
        default=1.0,
        help="a text is scored by its log-likelihood over its length to this power",
    )
    beams.add_argument(
        "--early_stopping",
        choices=EARLY_STOPPING,
        default="false",
        help="true: at num_beams whole texts; never: only where nothing better can come",
    )
    return parser


def main(argv: list[str]) -> int:
    """Write to the terminal as it comes, or to a file."""
    args = build_parser().parse_args(argv)
    config = _config(args)
    if (args.prompt is None) == (args.prompts is None):
        raise ValueError("give either --prompt TEXT or --prompts FILE")
    if args.batch_size < 1:
        raise ValueError(f"batch_size ({args.batch_size}) must be at least 1; set it to 8")
    prompts = [args.prompt] if args.prompt is not None else read_prompts(Path(args.prompts))
    run = opened_run(args)
    if run.transformer.decoder is None:
        _require_no_choice(args)
    for name in ("draft", "num_beams"):
        if args.engine is not None and getattr(args, name) is not None:
            raise ValueError(f"--engine samples alone; leave it or --{name} out")
    if run.checkpoint.suffix == ".ckpt" and run.checkpoint.stem != args.checkpoint:
        print(f"no {args.checkpoint}.ckpt yet; taking {run.checkpoint}", file=sys.stderr)
    writer = _Writer(run, config, _open_draft(args, run), args.compile, opened_engine(args, run))
    start = time.perf_counter()
    if args.prompt is not None and args.output is None:
        count = writer.show(args.prompt, whole=args.no_stream)
    else:
        # Opened before anything is written by the network, so that a bad path costs no time.
        with contextlib.ExitStack() as files:
            file = sys.stdout
            if args.output is not None:
                file = files.enter_context(Path(args.output).open("w", encoding="utf-8"))
            count = writer.write(prompts, 1 if args.engine else args.batch_size, file)
    speed = count / max(time.perf_counter() - start, 1e-9)
    by = "" if writer.engine is None else f"{writer.engine.name}, "
    print(f"{count} tokens, {speed:,.0f} tokens/s, {by}{run.checkpoint}", file=sys.stderr)
    if writer.draft is not None:
        few = [writer.read(prompt) for prompt in prompts[: args.batch_size]]
        told = writer.tell_draft(few)
        print(f"draft {args.draft}: {told}", file=sys.stderr)
    return 0


def _require_no_choice(args: argparse.Namespace) -> None:
    """Refuse flags of how text is written: an encoder fills in the likeliest pieces."""
    usual = build_parser()
    of_writing = SamplingConfig.__dataclass_fields__.keys() | {
        "num_beams", "num_return", "draft", "compile", "no_stream", "regex", "json_schema",
        "engine",
    }  # fmt: skip
    for name in of_writing & vars(args).keys():
        if getattr(args, name) != usual.get_default(name):
            flag = name.replace("no_stream", "no-stream")
            raise ValueError(
                f"--{flag} is for networks that write text, but {args.run} is an encoder, which "
                "fills in the likeliest piece at each <mask>; leave it out"
            )


def _open_draft(args: argparse.Namespace, run: OpenedRun) -> Draft | None:
    if args.draft is None:
        return None
    if args.num_beams is not None:
        raise ValueError("--draft is for sampling; leave it or --num_beams out")
    opened = open_run(args.draft, args.checkpoint)
    if opened.tokenizer.fingerprint != run.tokenizer.fingerprint:
        raise ValueError(
            f"{args.draft} has another tokenizer than {args.run}; take a draft with the same one"
        )
    return Draft(opened.transformer.to(DTYPES[args.draft_dtype or args.dtype]), args.num_proposed)


def _config(args: argparse.Namespace) -> Config:
    """Beam search where num_beams is given, else sampling; a flag of the other is refused."""
    searches = args.num_beams is not None
    kind, other = (BeamConfig, SamplingConfig) if searches else (SamplingConfig, BeamConfig)
    ours, usual = kind.__dataclass_fields__.keys(), build_parser()
    for name in (other.__dataclass_fields__.keys() - ours) & vars(args).keys():
        if getattr(args, name) != usual.get_default(name):
            mend = "leave it or --num_beams out" if searches else "give --num_beams too"
            raise ValueError(f"--{name} is for {'sampling' if searches else 'beam search'}; {mend}")
    if not searches:
        return sampling_config(args, pattern=_pattern(args))
    values = {name: getattr(args, name) for name in ours & vars(args).keys()}
    return BeamConfig(
        **values
        | {"stop": tuple(args.stop), "early_stopping": EARLY_STOPPING[args.early_stopping]},
        pattern=_pattern(args),
    )


def _pattern(args: argparse.Namespace) -> Pattern | None:
    if args.regex is None and args.json_schema is None:
        return None
    schema = None if args.json_schema is None else _read_text(Path(args.json_schema))
    return Pattern(regex=args.regex, json_schema=schema)


@dataclass
class _Writer:
    """A run that writes as the flags ask."""

    run: OpenedRun
    config: Config
    draft: Draft | None
    compiled: bool
    engine: Engine | None

    def show(self, prompt: str, *, whole: bool) -> int:
        """Print what the network makes of one prompt; the number of tokens in it."""
        net, tokenizer = self.run.transformer, self.run.tokenizer
        read, behind = self.read(prompt), ""
        joined = prompt if net.encoder is None else ""
        if not isinstance(read, str):
            joined, behind = prompt.split(MASK)
        if isinstance(self.config, BeamConfig) or net.decoder is None:
            (answers,) = self.answers([prompt])
            for answer in answers:
                score = f"[{answer['score']:.3f}] " if len(answers) > 1 else ""
                print(f"{score}{joined}{answer['completion']}{behind}")
            return self.count([answer["completion"] for answer in answers])
        pieces = stream(
            net, tokenizer, read, self.config,
            prompt_format=prompt_format_of(self.run), draft=self.draft, compiled=self.compiled,
            engine=self.engine,
        )  # fmt: skip
        if whole:
            pieces = iter(["".join(pieces)])
        # Asked for before the prompt is shown, so that a refusal is one line and nothing else.
        written = next(pieces, "")
        print(joined, end="")
        print(written, end="", flush=True)
        for piece in pieces:
            written += piece
            print(piece, end="", flush=True)
        print(behind)
        return self.count([written])

    def write(self, prompts: list[str], batch_size: int, file: TextIO) -> int:
        """A line of JSON per prompt, a batch at a time; the number of tokens in them."""
        count = 0
        for start in range(0, len(prompts), batch_size):
            batch = prompts[start : start + batch_size]
            for prompt, answers in zip(batch, self.answers(batch, start), strict=True):
                line = {"prompt": prompt, **answers[0]}
                if len(answers) > 1:
                    line["others"] = answers[1:]
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                count += self.count([answer["completion"] for answer in answers])
            file.flush()
            print(f"{start + len(batch)}/{len(prompts)} prompts", file=sys.stderr)
        return count

    def answers(self, prompts: list[str], first: int = 0) -> list[list[dict[str, Any]]]:
        """What is written for each prompt, best first: a completion, and the score of a search."""
        net, tokenizer, form = self.run.transformer, self.run.tokenizer, prompt_format_of(self.run)
        read = list(map(self.read, prompts))
        if isinstance(self.config, BeamConfig):
            found = search(
                net, tokenizer, read, self.config, prompt_format=form, compiled=self.compiled
            )
            return [
                [{"completion": text, "score": score} for text, score in texts] for texts in found
            ]
        if net.decoder is None:
            texts = [fill(net, tokenizer, prompt, prompt_format=form) for prompt in prompts]
        else:
            texts = generate(
                net, tokenizer, read, self.config,
                prompt_format=form, first=first, draft=self.draft, compiled=self.compiled,
                engine=self.engine,
            )  # fmt: skip
        return [[{"completion": text}] for text in texts]

    def read(self, prompt: str) -> Prompt:
        """What the network is given: where a decoder is to fill a gap, tokens that say so."""
        net = self.run.transformer
        if net.encoder is not None or MASK not in prompt:
            return prompt
        if not self.run.fills_gaps:
            raise ValueError(
                f"the prompt has {MASK}, but {self.run.path} has not learned to fill gaps; leave "
                "it out, or train with --config with/fill_in_the_middle"
            )
        return gap_prompt(self.run.tokenizer, prompt)

    def count(self, texts: list[str]) -> int:
        """Tokens in the texts; says where one ended before it matched the pattern."""
        rows = self.run.tokenizer.encode_batch(texts)
        if self.config.pattern is not None:
            constraint = Constraint(self.run.tokenizer, self.config.pattern)
            if unmet := sum(not constraint.is_met(row) for row in rows):
                print(
                    f"{unmet} of {len(rows)} texts ended before they matched; raise "
                    f"--max_new_tokens ({self.config.max_new_tokens}) or leave --stop out",
                    file=sys.stderr,
                )
        return sum(map(len, rows))

    def tell_draft(self, prompts: list[Prompt]) -> str:
        """What the draft was worth: some tokens are written with and without it once more."""
        assert self.draft is not None
        assert isinstance(self.config, SamplingConfig)
        few = replace(self.config, max_new_tokens=min(TIMED, self.config.max_new_tokens))
        net, tokenizer = self.run.transformer, self.run.tokenizer
        form = prompt_format_of(self.run)
        how: dict[str, Any] = {"prompt_format": form, "compiled": self.compiled}
        again = Draft(self.draft.transformer, self.draft.num_proposed)
        for _ in range(2):  # the first time compiles what is not compiled yet
            drafted = tokens_per_second(speculate(net, again, tokenizer, prompts, few, **how))
            plain = tokens_per_second(decode(net, tokenizer, prompts, few, **how))
        return (
            f"{self.draft.rate:.0%} of {self.draft.proposed} proposed tokens kept, "
            f"{self.draft.tokens_per_check:.1f} tokens a pass; {drafted:,.0f} tokens/s, "
            f"{drafted / plain:.2f}x as fast as without ({plain:,.0f})"
        )


def tokens_per_second(steps: Iterable[list[int | None]]) -> float:
    """How fast tokens come out of `decode` or `speculate`, prompts included."""
    start = time.perf_counter()
    count = sum(token is not None for step in steps for token in step)
    return count / (time.perf_counter() - start)


def read_prompts(path: Path) -> list[str]:
    """A prompt a line, or the field `prompt` of each line of a .jsonl file.

    Raises:
        FileNotFoundError: there is no such file; the nearest is named.
        ValueError: the file holds no prompt, or a line has none; the line is named.
    """
    prompts = []
    for number, line in enumerate(_read_text(path).split("\n"), 1):
        if line.strip():
            prompts.append(_prompt(line, f"{path}:{number}") if path.suffix == ".jsonl" else line)
    if not prompts:
        raise ValueError(f"{path} holds no prompt; write one a line")
    return prompts


def _read_text(path: Path) -> str:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist{nearest_name(path)}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        bad = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{bad} is not UTF-8; save the file as UTF-8") from error


def _prompt(line: str, place: str) -> str:
    try:
        prompt = json.loads(line)["prompt"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f'{place} is not JSON with a field "prompt"; mend the line') from error
    if not isinstance(prompt, str):
        raise ValueError(f"{place} has a prompt ({prompt!r}) that is no text; write it in quotes")
    return prompt
