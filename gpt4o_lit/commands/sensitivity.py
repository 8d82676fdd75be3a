"""`gpt4o-lit sensitivity RUN`: which layers bear pruning and rounding, and a recipe."""

import tempfile
from pathlib import Path

import yaml

from gpt4o_lit import cli
from gpt4o_lit.parse_errors import OneLineParser
from gpt4o_lit.run_directory import RunDirectory

EXAMPLE = """examples:
  gpt4o-lit sensitivity runs/quickstart/TIME
  gpt4o-lit sensitivity runs/quickstart/TIME --budget 0.18 --sparsities 0.5 --out layers
  gpt4o-lit compress runs/quickstart/TIME --recipe layers/recipe.yaml"""


def build_parser() -> OneLineParser:
    """The verb's options."""
    parser = OneLineParser(
        "sensitivity",
        "Prune and round one layer of a run at a time and measure how the loss rises: numbers, a "
        "heat map, and a recipe for `compress` that keeps within a budget of bytes. Further flags "
        "are those of `validate`.",
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="the directory that `fit` made")
    add("--budget", type=float, default=0.2, help="bytes, as a share of those in float32")
    add("--sparsities", type=float, nargs="+", default=[0.25, 0.5, 0.75])
    add("--num_batches", type=int, default=4, help="training batches to measure the loss on")
    add("--out", metavar="DIR", help="a new directory; default: RUN/sensitivity/TIME")
    return parser


def main(argv: list[str]) -> int:
    """Measure by a validation with one more callback."""
    args, others = build_parser().parse_with_keys(argv)
    run = RunDirectory.existing(args.run)
    settings = {key: getattr(args, key) for key in ("budget", "sparsities", "num_batches")}
    callback = {"class_path": "gpt4o_lit.callbacks.Sensitivity", "init_args": settings}
    given = None if args.out is None else RunDirectory.fresh("sensitivity", args.out)
    out = (given or run.below("sensitivity")).path
    with tempfile.TemporaryDirectory() as folder:
        overlay = Path(folder) / "sensitivity.yaml"
        overlay.write_text(yaml.safe_dump({"trainer": {"callbacks+": [callback]}}), "utf-8")
        flags = ["--resume", args.run, "--config", str(overlay), "--run_dir", str(out)]
        failed = cli.main(["validate", *flags, *others])
    if not failed:
        print(f"next:\n  gpt4o-lit compress {args.run} --recipe {out / 'recipe.yaml'}")
    return failed
