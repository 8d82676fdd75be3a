"""`gpt4o-lit configs`: the packaged configs with their first line."""

from gpt4o_lit import configs
from gpt4o_lit.parse_errors import OneLineParser

KINDS = {
    configs.EXPERIMENTS: "complete experiments   (fit --config NAME)",
    configs.OVERLAYS: "overlays               (fit --config NAME --config with/OVERLAY)",
    configs.RECIPES: "recipes                (compress RUN --recipe NAME)",
    configs.GRIDS: "grids                  (ablate NAME)",
    configs.SIZES: "sizes                  (--model.init_args.transformer model/SIZE)",
}


def build_parser() -> OneLineParser:
    """The verb's options."""
    parser = OneLineParser("configs", "List the packaged configs, or print one.")
    parser.add_argument("name", nargs="?", help="print this config")
    return parser


def main(argv: list[str]) -> int:
    """Print the table, or one config whole."""
    args = build_parser().parse_args(argv)
    if args.name:
        print(configs.find(args.name).read_text(encoding="utf-8"), end="")
        return 0
    for kind, title in KINDS.items():
        print(title)
        for name in configs.names():
            if (name.split("/")[0] if "/" in name else configs.EXPERIMENTS) == kind:
                print(f"  {name:<28} {configs.first_line(name)}")
    print("a script for SLURM     (gpt4o-lit configs launch/slurm.sbatch > slurm.sbatch)")
    return 0
