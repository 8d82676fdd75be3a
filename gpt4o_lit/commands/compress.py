"""`gpt4o-lit compress RUN`: a run as a directory of packed numbers that every verb opens."""

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from gpt4o_lit import cli, configs
from gpt4o_lit.callbacks import PostTrainingQuantization
from gpt4o_lit.compression import round_
from gpt4o_lit.interop.files import SINGLE
from gpt4o_lit.interop.run import OpenedRun, open_run, save_opened
from gpt4o_lit.model.count import count_parameters
from gpt4o_lit.model.quantized import formats_of, kernels_of
from gpt4o_lit.parse_errors import OneLineParser
from gpt4o_lit.run_directory import RunDirectory

FOLDER = "compress"
EXAMPLE = """examples:
  gpt4o-lit compress runs/quickstart/TIME --recipe int4
  gpt4o-lit compress runs/quickstart/TIME --recipe int8 --out small
  gpt4o-lit compress runs/quickstart/TIME           # one that was trained pruned or quantized
  gpt4o-lit compress runs/quickstart/TIME --recipe int4 --data.init_args.batch_size 4"""


def build_parser() -> OneLineParser:
    """The verb's options."""
    recipes = [name.partition("/")[2] for name in configs.names() if name.startswith(f"{FOLDER}/")]
    parser = OneLineParser(
        "compress",
        "Write a run with its weights as small whole numbers, and measure what that costs on its "
        "validation text. Further flags are those of `validate`.",
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="the directory that `fit` or `import` made")
    add("--recipe", help=f"{', '.join(recipes)}, or a YAML file; default: the weights as they are")
    add("--out", metavar="DIR", help="a new directory; default: RUN/compress/TIME")
    return parser


def main(argv: list[str]) -> int:
    """Compress, and tell what came out."""
    args, others = build_parser().parse_with_keys(argv)
    run = RunDirectory.existing(args.run)
    assert run.best_checkpoint.exists(), "looked for, and what is compressed already has none"
    config: Any = yaml.safe_load(run.config.read_text(encoding="utf-8"))
    recipe = None if args.recipe is None else _find(args.recipe)
    trained_here = "class_path" in config.get("data", {})
    measured = recipe is not None and trained_here
    if others and not measured:
        raise ValueError(f"{others[0]} is for recipes and the run's own text; leave it out")
    out = run.below(FOLDER).path if args.out is None else RunDirectory.fresh(FOLDER, args.out).path
    if not measured:
        _write(run, recipe, out)
    else:
        flags = ["--resume", args.run, "--config", str(recipe), "--run_dir", str(out)]
        if failed := cli.main(["validate", *flags, *others]):
            return failed
    print(summary(out))
    return 0


def summary(directory: Path) -> str:
    """What a compressed directory holds, against the same network in float32."""
    network = open_run(directory).transformer
    size = (directory / SINGLE).stat().st_size
    full = 4 * count_parameters(network.config)["total"]
    lines = [f"{directory / SINGLE}: {size:,} bytes, {size / full:.3f} of {full:,} in float32"]
    for format in sorted({str(format) for format in formats_of(network).values()}):
        count = sum(str(each) == format for each in formats_of(network).values())
        lines.append(f"  {count} weights: {format}")
    for work, rows in (("writing", 1), ("reading a prompt", 512)):
        for kernel in sorted(kernels_of(network, rows)):
            lines.append(f"  {work}: {kernel}")
    lines += ["next:", f"  gpt4o-lit generate {directory} --prompt 'The ' --compile"]
    return "\n".join(lines)


def _find(name: str) -> Path:
    packaged = Path(name).suffix == "" and "/" not in name
    return configs.find(f"{FOLDER}/{name}" if packaged else name)


def _write(run: RunDirectory, recipe: Path | None, out: Path) -> None:
    """Without the run's data: what needs no text."""
    opened = open_run(run.path)
    if recipe is not None:
        _round_(opened, recipe)
    save_opened(opened, out)


def _round_(opened: OpenedRun, recipe: Path) -> None:
    values: Any = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--callbacks", type=list[PostTrainingQuantization])
    chosen = parser.parse_object({"callbacks": values["trainer"]["callbacks+"]})
    for callback in parser.instantiate_classes(chosen).callbacks:
        if callback.method != "nearest":
            raise ValueError(
                f"{recipe.stem} looks at training text ({callback.method}), which {opened.path} "
                "lacks; take a recipe that rounds to nearest, or fine-tune the run first"
            )
        formats = callback.formats.of(opened.transformer)
        round_(opened.transformer, formats)
