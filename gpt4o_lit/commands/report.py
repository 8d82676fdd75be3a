"""`gpt4o-lit report DIR…`: an ablation or a set of runs as one page."""

import shlex
import sys
from pathlib import Path

from gpt4o_lit.parse_errors import OneLineParser
from gpt4o_lit.run_directory import RunDirectory

EXAMPLE = """examples:
  gpt4o-lit report runs/ablations/activation          # what `gpt4o-lit ablate` left
  gpt4o-lit report runs/quickstart                    # all runs below, grouped by their configs
  gpt4o-lit report runs/a/TIME runs/b/TIME --metric val/accuracy --out compared

Runs of one config and several seeds are one variant; the first run's is the base. Seeds that a
variant and the base share are compared pair by pair. docs/reports.md tells how to read the page."""


def build_parser() -> OneLineParser:
    """The verb's options."""
    parser = OneLineParser(
        "report",
        "Compare runs on one page: means and spread over seeds, differences to a base with 95% "
        "intervals and tests corrected for their number, curves by step, tokens, seconds and "
        "FLOPs, quality against bytes and speed, and what differs between the runs. HTML that "
        "needs nothing else, Markdown, CSV, and each plot as PNG.",
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    add("directories", nargs="+", metavar="DIR", help="an ablation, runs, or folders with runs")
    add("--base", metavar="NAME", help="the variant to compare with, or the directory of its run")
    add("--metric", help="a column of metrics.csv; default: the ablation's, or val/loss")
    add("--mode", choices=("min", "max"), help="whether less or more is better; default: known")
    add(
        "--at",
        choices=("last", "best"),
        default="last",
        help="the validation that counts (default: %(default)s); best flatters, for it picks the "
        "luckiest",
    )
    add("--out", metavar="OUT", help="a new directory; default: DIR/report/TIME")
    return parser


def main(argv: list[str]) -> int:
    """Read, compare, write, and say in short what came out."""
    args = build_parser().parse_args(argv)
    from gpt4o_lit.experiments.report import write_report
    from gpt4o_lit.experiments.results import read_study

    study = read_study(
        args.directories, base=args.base, metric=args.metric, mode=args.mode, at=args.at
    )
    given = None if args.out is None else RunDirectory.fresh("report", args.out)
    out = (given or RunDirectory(Path(args.directories[0])).below("report")).path
    print(write_report(study, out, f"gpt4o-lit report {shlex.join(argv)}"))
    for name in ("report.html", "report.md", "variants.csv", "runs.csv", "plots"):
        print(out / name, file=sys.stderr)
    return 0
