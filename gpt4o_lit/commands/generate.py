"""`gpt4o-lit generate RUN`: let a trained run write."""

import argparse
import json
import sys
import time
from pathlib import Path

from gpt4o_lit.generation import SamplingConfig, fill, generate, stream
from gpt4o_lit.interop.run import OpenedRun, open_run

EXAMPLE = """examples:
  gpt4o-lit generate runs/quickstart/TIME --prompt "def main():" --temperature 0
  gpt4o-lit generate runs/quickstart/TIME --prompts prompts.txt --output answers.jsonl"""


def build_parser() -> argparse.ArgumentParser:
    """The verb's options."""
    parser = argparse.ArgumentParser(
        prog="gpt4o-lit generate",
        description="Let a trained run write: a decoder goes on with the prompt, "
        "an encoder-decoder answers it, an encoder fills in each <mask>.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", help="the directory that `fit` made")
    parser.add_argument("--prompt", help="the text to go on with")
    parser.add_argument("--prompts", help="a file with a prompt a line, or .jsonl with `prompt`")
    parser.add_argument("--output", help="write prompt and completion to this .jsonl file")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")
    parser.add_argument("--batch_size", type=int, default=8, help="prompts written at once")
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.8, help="0: always the likeliest")
    parser.add_argument("--top_k", type=int)
    parser.add_argument("--top_p", type=float)
    parser.add_argument("--min_p", type=float)
    parser.add_argument("--repetition_penalty", type=float, default=1.0)
    parser.add_argument("--stop", nargs="*", default=[], help="stop before any of these strings")
    parser.add_argument("--seed", type=int, default=0)
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
    run = open_run(args.run, args.checkpoint)
    if args.prompt is not None and args.output is None:
        return _show(run, args.prompt, config)
    prompts = [args.prompt] if args.prompt is not None else read_prompts(Path(args.prompts))
    lines = []
    for start in range(0, len(prompts), args.batch_size):
        batch = prompts[start : start + args.batch_size]
        if run.transformer.decoder is None:
            texts = [fill(run.transformer, run.tokenizer, prompt) for prompt in batch]
        else:
            texts = generate(run.transformer, run.tokenizer, batch, config)
        lines += [{"prompt": p, "completion": t} for p, t in zip(batch, texts, strict=True)]
        print(f"{len(lines)}/{len(prompts)} prompts", file=sys.stderr)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    if args.output is None:
        print(text, end="")
    else:
        Path(args.output).write_text(text, encoding="utf-8")
    return 0


def _show(run: OpenedRun, prompt: str, config: SamplingConfig) -> int:
    if run.transformer.decoder is None:
        print(fill(run.transformer, run.tokenizer, prompt))
        return 0
    print(prompt if run.transformer.encoder is None else "", end="", flush=True)
    start, written = time.perf_counter(), ""
    for piece in stream(run.transformer, run.tokenizer, prompt, config):
        written += piece
        print(piece, end="", flush=True)
    print()
    count = len(run.tokenizer.encode(written))
    speed = count / max(time.perf_counter() - start, 1e-9)
    print(f"{count} tokens, {speed:,.0f} tokens/s, {run.checkpoint}", file=sys.stderr)
    return 0


def read_prompts(path: Path) -> list[str]:
    """A prompt a line, or the field `prompt` of each line of a .jsonl file.

    Raises:
        ValueError: the file holds no prompt, or a line has none; the line is named.
    """
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if path.suffix == ".jsonl":
        for number, line in enumerate(lines):
            try:
                lines[number] = json.loads(line)["prompt"]
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise ValueError(
                    f'{path}:{number + 1} is not JSON with a field "prompt"; mend the line'
                ) from error
    if not lines:
        raise ValueError(f"{path} holds no prompt; write one a line")
    return lines
