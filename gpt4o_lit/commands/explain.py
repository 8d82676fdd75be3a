"""`gpt4o-lit explain RUN --text TEXT`: a look inside."""

import sys
import warnings

from gpt4o_lit.commands.run_flags import prompt_format_of
from gpt4o_lit.explanation import explain, write_page
from gpt4o_lit.interop.run import open_run
from gpt4o_lit.parse_errors import OneLineParser
from gpt4o_lit.run_directory import RunDirectory

PAGE = "explain.html"
MOST_TOKENS = 256
EXAMPLE = """examples:
  gpt4o-lit explain runs/songci/TIME --text "我爱吃苹果"
  gpt4o-lit explain runs/encoder_tiny/TIME --text "def <mask>(self):"
  gpt4o-lit explain runs/translate/TIME --text "I like apples" --answer "我爱吃苹果" """


def build_parser() -> OneLineParser:
    """The verb's options."""
    parser = OneLineParser(
        "explain",
        "Show what a network makes of a text: attention per layer and head, rollout, "
        "logit lens, what speaks for its answer, and the alignment of an encoder-decoder. One page "
        "of HTML that needs nothing else, and PNGs.",
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="the directory that `fit` or `import` made")
    add("--text", required=True, help="what is read; an encoder is asked for its first <mask>")
    add("--answer", help="what an encoder-decoder's decoder reads; default: what it would write")
    add("--output", metavar="DIR", help="a new directory; default: RUN/explain/TIME")
    add("--no-png", action="store_true", help="the page alone")
    add("--num_steps", type=int, default=32, help="of the attributions; 0: none (and no Captum)")
    add("--checkpoint", choices=("best", "last"), default="best")
    return parser


def main(argv: list[str]) -> int:
    """Explain, write and say where."""
    args = build_parser().parse_args(argv)
    if args.num_steps < 0:
        raise ValueError(f"num_steps ({args.num_steps}) must be at least 0; set it to 32")
    run = open_run(args.run, args.checkpoint)
    form = prompt_format_of(run)
    told = explain(
        run.transformer, run.tokenizer, args.text, answer=args.answer, prompt_format=form,
        num_steps=args.num_steps,
    )  # fmt: skip
    if max(len(told.tokens), len(told.source)) > MOST_TOKENS:
        raise ValueError(
            f"the text has {max(len(told.tokens), len(told.source))} tokens, more than a heat map "
            f"can show ({MOST_TOKENS}); shorten it"
        )
    place = (
        RunDirectory(run.path).below("explain").path
        if args.output is None
        else RunDirectory.fresh("", args.output).path
    )
    write_page(told, place / PAGE)
    if not args.no_png:
        from gpt4o_lit.explanation.pictures import draw

        with warnings.catch_warnings(record=True) as said:
            draw(told, place)
        for warning in said:
            print(warning.message, file=sys.stderr)
    for path in sorted(place.iterdir(), key=lambda path: (path.suffix != ".html", path.name)):
        print(path)
    spoken = told.attribution
    if spoken is not None:
        total = spoken.difference - spoken.missing
        print(f"what speaks for {told.target!r}: {total:.3f} of {spoken.difference:.3f} nats")
    return 0
