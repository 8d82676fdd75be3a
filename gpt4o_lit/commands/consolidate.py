"""`gpt4o-lit consolidate RUN`: one file of a checkpoint that processes wrote in parts."""

from pathlib import Path

from gpt4o_lit.interop.checkpoint_file import write_file
from gpt4o_lit.interop.checkpoints import load_checkpoint
from gpt4o_lit.parse_errors import OneLineParser
from gpt4o_lit.run_directory import RunDirectory

EXAMPLE = """examples:
  gpt4o-lit consolidate runs/big/TIME                      # its best checkpoint -> best.whole.ckpt
  gpt4o-lit consolidate runs/big/TIME/checkpoints/step_900.ckpt --output mine.ckpt
  gpt4o-lit fit --resume runs/big/TIME --ckpt_path mine.ckpt

Every verb reads a run whose checkpoints are folders as it is; one file is for moving it."""


def build_parser() -> OneLineParser:
    """The verb's options."""
    parser = OneLineParser(
        "consolidate",
        "Make one file of a checkpoint that is a folder of parts (FSDP2 with "
        "save_distributed_checkpoint): weights, optimizer and all else, sealed by a checksum as "
        "other checkpoints are. The folder stays.",
        epilog=EXAMPLE,
    )
    parser.add_argument("source", metavar="RUN", help="a run's directory, or a checkpoint in it")
    parser.add_argument(
        "--checkpoint", choices=["best", "last"], default="best", help="which one of a run"
    )
    parser.add_argument(
        "--output", metavar="FILE", help="default: beside the folder, NAME.whole.ckpt"
    )
    return parser


def main(argv: list[str]) -> int:
    """Read the parts, check every byte, write one file."""
    args = build_parser().parse_args(argv)
    folder = Path(args.source)
    if folder.suffix != ".ckpt":
        run = RunDirectory.existing(args.source)
        folder = run.last_checkpoint if args.checkpoint == "last" else run.best_checkpoint
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist; give a run's directory")
    if not folder.is_dir():
        raise ValueError(f"{folder} is one file already; every verb reads it as it is")
    output = Path(args.output or folder.with_name(f"{folder.stem}.whole.ckpt"))
    if output.exists():
        raise FileExistsError(f"{output} exists already; remove it, or choose another --output")
    saved = load_checkpoint(folder)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_file(saved, output)
    print(f"{output}: {output.stat().st_size:,} bytes, of step {saved['global_step']}")
    return 0
