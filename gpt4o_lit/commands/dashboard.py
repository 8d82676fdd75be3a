"""`gpt4o-lit dashboard DIR…`: a dashboard of Weights & Biases, made by code."""

import os
from pathlib import Path

from gpt4o_lit.experiments.dashboards import (
    Place,
    ablation_dashboard,
    as_json,
    compression_dashboard,
)
from gpt4o_lit.experiments.results import METRIC, mode_of
from gpt4o_lit.experiments.run_files import ABLATION, read_plan
from gpt4o_lit.parse_errors import OneLineParser
from gpt4o_lit.run_directory import RunDirectory

EXAMPLE = """examples:
  gpt4o-lit dashboard runs/ablations/mine                      # print what W&B would be sent
  gpt4o-lit dashboard runs/ablations/mine --entity me --save   # have it there
  gpt4o-lit dashboard runs/parent/TIME runs/child/TIME --metric val/loss

Of an ablation: variants as lines, seeds as bands. Of runs, the parent first: quality against bytes
and speed, and what came of what. The runs have to be in W&B: `--config with/wandb`, and
`wandb sync` where they were offline."""


def build_parser() -> OneLineParser:
    """The verb's options."""
    parser = OneLineParser(
        "dashboard",
        "Make a dashboard of Weights & Biases for an ablation, or for a run and what was made "
        "smaller of it (pip: [wandb-workspaces]). Without --save nothing is sent.",
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    add("directories", nargs="+", type=Path, metavar="DIR", help="an ablation; or parent, children")
    add("--entity", help="whose project; default: WANDB_ENTITY, or a dash where nothing is sent")
    add("--project", default="gpt4o-lit", help="default: %(default)s, as with/wandb has it")
    add("--metric", help="by what to judge; default: the ablation's, or val/loss")
    add("--mode", choices=("min", "max"), help="whether less or more is better; default: known")
    add("--save", action="store_true", help="put it into W&B, which takes an account")
    return parser


def main(argv: list[str]) -> int:
    """Build it; print or save it."""
    args = build_parser().parse_args(argv)
    entity = args.entity or os.environ.get("WANDB_ENTITY")
    if args.save and not entity:
        raise ValueError("--save needs to know whose project it is; add --entity NAME")
    place = Place(entity=entity or "-", project=args.project)
    first = args.directories[0]
    if (first / ABLATION).is_file():
        if len(args.directories) > 1:
            raise ValueError(f"{first} is an ablation; give it alone")
        plan = read_plan(first)
        metric = args.metric or str(plan.get("metric", METRIC))
        known = plan.get("mode") if metric == plan.get("metric") else None
        mode = args.mode or known or mode_of(metric)
        workspace = ablation_dashboard(first.resolve().name, metric, mode, place)
    else:
        runs = [RunDirectory.existing(str(each)).path for each in args.directories]
        metric = args.metric or METRIC
        workspace = compression_dashboard(runs, metric, args.mode or mode_of(metric), place)
    if args.save:
        workspace.save()
        print(workspace.url)
    else:
        print(as_json(workspace))
    return 0
