"""`gpt4o-lit generate RUN`: let a trained run write."""

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import TextIO

from gpt4o_lit.generation import PromptFormat, SamplingConfig, fill, generate, stream
from gpt4o_lit.interop.run import OpenedRun, open_run
from gpt4o_lit.parse_errors import OneLineParser
from gpt4o_lit.tokenizer.load import nearest_name

EXAMPLE = """examples:
  gpt4o-lit generate runs/quickstart/TIME --prompt "def main():" --temperature 0
  gpt4o-lit generate runs/quickstart/TIME --prompts prompts.txt --output answers.jsonl
  gpt4o-lit generate runs/encoder_tiny/TIME --prompt "def <mask>(self):" --checkpoint last"""


def build_parser() -> OneLineParser:
    """The verb's options."""
    parser = OneLineParser(
        prog="gpt4o-lit generate",
        description="Let a trained run write: a decoder goes on with the prompt, "
        "an encoder-decoder answers it, an encoder fills in each <mask>.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    parser.add_argument("--max_new_tokens", type=int, default=128, help="most tokens to write")
    parser.add_argument("--temperature", type=float, default=0.8, help="0: always the likeliest")
    parser.add_argument("--top_k", type=int, help="choose among the k likeliest, such as 50")
    parser.add_argument("--top_p", type=float, help="choose among the likeliest, such as 0.9")
    parser.add_argument("--min_p", type=float, help="at least this share of the likeliest")
    parser.add_argument("--repetition_penalty", type=float, default=1.0, help="1: none")
    parser.add_argument("--stop", nargs="*", default=[], help="stop before any of these strings")
    parser.add_argument("--seed", type=int, default=0, help="the same seed, the same text")
    return parser


def main(argv: list[str]) -> int:
    """Write to the terminal as it comes, or to a file."""
    args = build_parser().parse_args(argv)
    names = SamplingConfig.__dataclass_fields__
    config = SamplingConfig(
        **{name: value for name, value in vars(args).items() if name in names and name != "stop"},
        stop=tuple(args.stop),
    )
    if (args.prompt is None) == (args.prompts is None):
        raise ValueError("give either --prompt TEXT or --prompts FILE")
    if args.batch_size < 1:
        raise ValueError(f"batch_size ({args.batch_size}) must be at least 1; set it to 8")
    prompts = [args.prompt] if args.prompt is not None else read_prompts(Path(args.prompts))
    run = open_run(args.run, args.checkpoint)
    if run.checkpoint.stem != args.checkpoint:
        print(f"no {args.checkpoint}.ckpt yet; taking {run.checkpoint}", file=sys.stderr)
    start = time.perf_counter()
    if args.prompt is not None and args.output is None:
        count = _show(run, args.prompt, config, whole=args.no_stream)
    else:
        # Opened before anything is written by the network, so that a bad path costs no time.
        with contextlib.ExitStack() as files:
            file = sys.stdout
            if args.output is not None:
                file = files.enter_context(Path(args.output).open("w", encoding="utf-8"))
            count = _write(run, prompts, config, args.batch_size, file)
    speed = count / max(time.perf_counter() - start, 1e-9)
    print(f"{count} tokens, {speed:,.0f} tokens/s, {run.checkpoint}", file=sys.stderr)
    return 0


def _write(
    run: OpenedRun, prompts: list[str], config: SamplingConfig, batch_size: int, file: TextIO
) -> int:
    """A line of JSON per prompt, a batch at a time; the number of tokens in them."""
    count = 0
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        if run.transformer.decoder is None:
            texts = [_fill(run, prompt) for prompt in batch]
        else:
            texts = generate(
                run.transformer,
                run.tokenizer,
                batch,
                config,
                prompt_format=_format(run),
                first=start,
            )
        for prompt, text in zip(batch, texts, strict=True):
            line = {"prompt": prompt, "completion": text}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        file.flush()
        count += sum(map(len, run.tokenizer.encode_batch(texts)))
        print(f"{start + len(batch)}/{len(prompts)} prompts", file=sys.stderr)
    return count


def _show(run: OpenedRun, prompt: str, config: SamplingConfig, *, whole: bool) -> int:
    """Print what the network makes of one prompt; the number of tokens in it."""
    if run.transformer.decoder is None:
        written = _fill(run, prompt)
        print(written)
        return len(run.tokenizer.encode(written))
    pieces = stream(run.transformer, run.tokenizer, prompt, config, prompt_format=_format(run))
    if whole:
        pieces = iter(["".join(pieces)])
    # Asked for before the prompt is shown, so that a refusal is one line and nothing else.
    written = next(pieces, "")
    print(prompt if run.transformer.encoder is None else "", end="")
    print(written, end="", flush=True)
    for piece in pieces:
        written += piece
        print(piece, end="", flush=True)
    print()
    return len(run.tokenizer.encode(written))


def _fill(run: OpenedRun, text: str) -> str:
    return fill(run.transformer, run.tokenizer, text, prompt_format=_format(run))


def _format(run: OpenedRun) -> PromptFormat:
    return PromptFormat(add_bos=run.add_bos, bidirectional=run.bidirectional_prompt)


def read_prompts(path: Path) -> list[str]:
    """A prompt a line, or the field `prompt` of each line of a .jsonl file.

    Raises:
        FileNotFoundError: there is no such file; the nearest is named.
        ValueError: the file holds no prompt, or a line has none; the line is named.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist{nearest_name(path)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        bad = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{bad} is not UTF-8; save the file as UTF-8") from error
    prompts = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            prompts.append(_prompt(line, f"{path}:{number}") if path.suffix == ".jsonl" else line)
    if not prompts:
        raise ValueError(f"{path} holds no prompt; write one a line")
    return prompts


def _prompt(line: str, place: str) -> str:
    try:
        prompt = json.loads(line)["prompt"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f'{place} is not JSON with a field "prompt"; mend the line') from error
    if not isinstance(prompt, str):
        raise ValueError(f"{place} has a prompt ({prompt!r}) that is no text; write it in quotes")
    return prompt
