"""`gpt4o-lit chat RUN`: talk with a trained run in the terminal."""

import contextlib
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

from gpt4o_lit.commands.run_flags import (
    add_sampling_flags,
    opened_engine,
    opened_run,
    prompt_format_of,
    sampling_config,
)
from gpt4o_lit.generation import Conversation, SamplingConfig, stream
from gpt4o_lit.interop.engines import Engine
from gpt4o_lit.interop.run import OpenedRun
from gpt4o_lit.parse_errors import OneLineParser
from gpt4o_lit.tokenizer import Message

COMMANDS = """  /reset          forget the conversation, but not the system message
  /system TEXT    say who the assistant is (no TEXT: take it away)
  /save FILE      write the messages as JSON, as OpenAI's API takes them
  /help           show this
  /quit           leave (so does Ctrl-D); Ctrl-C stops an answer"""


def build_parser() -> OneLineParser:
    """The verb's options."""
    parser = OneLineParser(
        "chat",
        "Talk with a run that was fine-tuned on conversations; others only ramble.",
        epilog=f"while you talk:\n{COMMANDS}",
    )
    parser.add_argument("run", metavar="RUN", help="the directory that `fit` made")
    parser.add_argument("--system", default="", metavar="TEXT", help="who the assistant is")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")
    add_sampling_flags(parser)
    return parser


def main(argv: list[str]) -> int:
    """Read lines, answer them as they are written, until the input ends."""
    args = build_parser().parse_args(argv)
    run = opened_run(args)
    if run.transformer.decoder is None:
        raise ValueError(f"{args.run} is an encoder, which writes no text; take another run")
    engine = opened_engine(args, run)
    longest = run.transformer.config.max_seq_len
    talk = Conversation(run.tokenizer, longest)
    talk.instruct(args.system)
    room = min(args.max_new_tokens, longest // 2)
    config = sampling_config(args, max_new_tokens=room, stop_ids=(talk.end_id,))
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # lines can be edited, and earlier ones fetched
        print("/help tells what can be done here", file=sys.stderr)
    while (line := _read()) is not None:
        if line.startswith("/"):
            if not _obey(line, talk):
                return 0
        elif line.strip():
            config = replace(config, seed=config.seed + 1)
            _answer(run, talk, line, config, args.compile, engine)
    return 0


def _read() -> str | None:
    try:
        return input("> " if sys.stdin.isatty() else "")
    except (EOFError, KeyboardInterrupt):
        return None


def _obey(line: str, talk: Conversation) -> bool:
    """Do what a line that starts with / says; False to leave."""
    verb, _, rest = line.strip().partition(" ")
    if verb == "/quit":
        return False
    if verb == "/reset":
        talk.reset()
    elif verb == "/system":
        talk.instruct(rest.strip())
    elif verb == "/save":
        _save(rest.strip(), talk)
    else:
        if verb != "/help":
            print(f"no command {verb}", file=sys.stderr)
        print(COMMANDS, file=sys.stderr)
    return True


def _save(name: str, talk: Conversation) -> None:
    messages = [asdict(message) for message in talk.messages]
    try:
        # "x": nothing that is there is written over.
        with Path(name).open("x", encoding="utf-8") as file:
            json.dump({"messages": messages}, file, ensure_ascii=False, indent=1)
            file.write("\n")
    except OSError as error:
        print(f"cannot save to {name!r}: {error.strerror}; give another name", file=sys.stderr)
    else:
        print(f"saved {len(messages)} messages to {name}", file=sys.stderr)


def _answer(
    run: OpenedRun,
    talk: Conversation,
    line: str,
    config: SamplingConfig,
    compiled: bool,
    engine: Engine | None,
) -> None:
    """Write an answer as it comes; one that is cut short by Ctrl-C is kept as it is."""
    talk.messages.append(Message("user", line))
    try:
        ids, left_out = talk.prompt(config.max_new_tokens)
    except ValueError as error:
        talk.messages.pop()
        print(error, file=sys.stderr)
        return
    if left_out:
        print(f"(the oldest {left_out} messages no longer fit)", file=sys.stderr)
    form = prompt_format_of(run)
    written = ""
    try:
        pieces = stream(
            run.transformer, run.tokenizer, ids, config,
            prompt_format=form, compiled=compiled, engine=engine,
        )  # fmt: skip
        for piece in pieces:
            written += piece
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        print(" [stopped]", end="")
    print()
    talk.messages.append(Message("assistant", written))
